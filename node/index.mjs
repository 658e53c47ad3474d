import twinflash from './index.js';

export const { Updater, Device, attach, guard, TwinflashError, codes, version } = twinflash;
export default twinflash;
