# Tries the Debian packages out, in a copy of the system (see over.sh): /try has them, and the examples.
cd /try
export DEBIAN_FRONTEND=noninteractive
unset LD_LIBRARY_PATH PKG_CONFIG_PATH TWINFLASH_DEVICE TWINFLASH_CA
started=
trap 'kill $started 2>/dev/null || true' EXIT
fail() {
    echo "try.sh: $*" >&2
    exit 1
}
# until_true COMMAND...: within a minute
until_true() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    fail "never: $*"
}

if command -v lintian >/dev/null; then lintian --allow-root --fail-on error,warning ./*.deb; fi
dpkg -i ./*.deb
twinflash --version
if command -v systemd-analyze >/dev/null; then systemd-analyze verify twinflash.service; fi

# Against what is installed, with nothing but what a user would have.
make -s -C examples OUT=/try/shared
make -s -C examples OUT=/try/static STATIC=1
ldd shared/device | grep -q "libtwinflash.so" || fail "the example is not linked with the shared library"
ldd static/device | grep -q "libtwinflash.so" && fail "the example is linked with the shared library"
cmake -S examples -B cmake >cmake.log && cmake --build cmake >>cmake.log || { cat cmake.log; exit 1; }

head -c 300000 /dev/urandom >image.bin
check=$(sha256sum image.bin | cut -d' ' -f1)
python3 -u -m http.server --bind 127.0.0.1 0 >server.log 2>&1 &
started="$started $!"
until_true grep -q 'port [0-9]' server.log
port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' server.log | head -n 1)
twinflash hub --json --mqtt-port 0 --https-port 0 >hub.json &
started="$started $!"
until_true grep -q '}' hub.json
of() { python3 -c 'import json, sys; from functools import reduce
print(reduce(lambda value, key: value[key], sys.argv[1:], json.loads(open("hub.json").readline())))' "$@"; }
TWINFLASH_SERVICE=$(of serviceConnectionString)
ca=$(of ca)
export TWINFLASH_SERVICE
# updated FILE: has device1 updated
updated() {
    twinflash update --ca "$ca" device1 "http://127.0.0.1:$port/image.bin" --check "$check"
    cmp "$1" image.bin
}

# The agent, as its unit starts it, with the configuration that the package brings.
mkdir -p /opt/app
sed -i -e "s|^#ca = \"hub-ca.pem\"|ca = \"$ca\"|" -e 's|^#allow_http = false|allow_http = true|' \
    -e 's|^restart = .*|restart = "none"|' /etc/twinflash/twinflash.toml
(umask 077 && of devices device1 >/etc/twinflash/device.connection)
pre=$(sed -n 's/^ExecStartPre=-//p' /lib/systemd/system/twinflash.service)
start=$(sed -n 's/^ExecStart=//p' /lib/systemd/system/twinflash.service)
$pre
$start &
agent=$!
updated /opt/app/app.bin
kill $agent
wait $agent || fail "the agent ends with $?"

# An example, in each way.
TWINFLASH_DEVICE=$(of devices device1) TWINFLASH_CA=$ca
export TWINFLASH_DEVICE TWINFLASH_CA
for program in shared/device static/device cmake/device_twinflash cmake/device_static; do
    rm -rf state app.bin
    "$program" state app.bin &
    device=$!
    updated app.bin
    kill $device
    wait $device || fail "$program ends with $?"
done

# An upgrade leaves the configuration alone, a removal too; after a purge nothing is left.
dpkg -i --force-confdef --force-confold ./twinflash_*.deb
grep -q '^allow_http = true' /etc/twinflash/twinflash.toml || fail "the configuration is lost"
names=$(dpkg-deb --show --showformat '${Package}\n' ./libtwinflash0*.deb) || true
names="twinflash libtwinflash-dev $names"
# shellcheck disable=SC2086
dpkg --remove $names
[ -f /etc/twinflash/twinflash.toml ] || fail "the configuration is removed before it is purged"
rm /etc/twinflash/device.connection
# shellcheck disable=SC2086
dpkg --purge $names
left=$(find /etc /usr /lib /var /opt -path /usr/local -prune -o -name "*twinflash*" -print | grep -v -e ^/var/log/ -e ^/opt/app/ || true)
[ -z "$left" ] || fail "left behind: $left"
ldconfig -p | grep twinflash && fail "the library is still known"
echo "the Debian packages install, run and go"
