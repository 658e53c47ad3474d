import twinflash from './index.js';

export const { Updater, Device, attach, TwinflashError, codes, version } = twinflash;
export default twinflash;
