# Runs try.sh in a copy of this system that is in memory: its files stay as they are. In a mount namespace of
# its own, as root: over.sh ROOT_OF_THE_SOURCES PACKAGE...
set -eu
root=$1
shift
place=$(mktemp -d)
mount -t tmpfs none "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay none -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
mkdir -p "$place/root/try"
cp "$@" "$root/xtask/src/deb/try.sh" "$place/root/try"
cp -r "$root/examples/c" "$place/root/try/examples"
for directory in dev proc; do mount --rbind "/$directory" "$place/root/$directory"; done
mount -t tmpfs none "$place/root/tmp"
mount -t tmpfs none "$place/root/run"
status=0
chroot "$place/root" sh -eu /try/try.sh || status=$?
umount --lazy "$place"
rmdir "$place"
exit "$status"
