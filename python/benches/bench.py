"""What `cargo xtask bench python` measures: the package against the best ways without it, on one machine in one run. Each download is in a
process of its own, and all take turns.

    bench.py URL SHA256 DIRECTORY [--runs N]
"""

import argparse
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

CHUNK = 1 << 20
# Of fixed work, so that what takes longer was slowed.
TURNS = 500


def ours(url, digest, directory):
    updater = updater_in(directory)
    start = time.perf_counter()
    assert updater.handle_method("firmwareUpdate", {"fwPackageUri": url, "fwPackageCheckValue": digest}).status == 200
    outcome = updater.wait(300)
    took = time.perf_counter() - start
    outcome.raise_for_failure()
    return took


def updater_in(directory):
    import twinflash

    updater = twinflash.Updater(
        state_dir=directory / "state", install=twinflash.FileInstall(directory / "out.bin"),
        policy=twinflash.Policy(allow_http=True, answer_wait=0, confirm="none", progress_step=0),
    )  # fmt: skip

    def hub():
        """Takes every report at once."""
        for outbound in updater.reports():
            if isinstance(outbound, twinflash.Report):
                updater.report_done(outbound.id, 204)
            else:
                updater.handle_twin({"desired": {"$version": 1}, "reported": {"$version": 1}}, complete=True)

    updater.connected()
    threading.Thread(target=hub, daemon=True).start()
    return updater


def with_requests(url, digest, directory):
    import requests

    start = time.perf_counter()
    hashed = hashlib.sha256()
    with requests.get(url, stream=True) as response, open(directory / "out.bin", "wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(CHUNK):
            hashed.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    assert hashed.hexdigest() == digest
    return time.perf_counter() - start


def with_urllib(url, digest, directory):
    """As fast as it gets: one buffer, nothing copied, no buffered file."""
    import urllib.request

    start = time.perf_counter()
    hashed = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with urllib.request.urlopen(url) as response, open(directory / "out.bin", "wb", buffering=0) as file:
        while True:
            length = response.readinto(buffer)
            if not length:
                break
            part = view[:length]
            hashed.update(part)
            file.write(part)
        os.fsync(file.fileno())
    assert hashed.hexdigest() == digest
    return time.perf_counter() - start


WAYS = {"twinflash": ours, "requests, hashlib": with_requests, "urllib readinto, hashlib": with_urllib}


def memory(name):
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))


def one(way, url, digest, directory):
    """In a process of its own: seconds, and KiB at most over the interpreter with what it needs loaded."""
    import twinflash  # noqa: F401

    idle = memory("VmRSS")
    # The highest so far is that of now.
    with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
        reset.write("5")
    took = WAYS[way](url, digest, directory)
    return took, memory("VmHWM") - idle


def method_calls():
    """Of a method that starts nothing, in microseconds: refused, and one that asks for the status."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory, updater_in(pathlib.Path(directory)) as updater:
        found = {}
        for name, payload in [("firmwareUpdate", {"fwPackageUri": "test.com"}), ("getFirmwareUpdateStatus", None)]:
            rounds = []
            for _ in range(10):
                times = []
                for _ in range(300):
                    start = time.perf_counter_ns()
                    updater.handle_method(name, payload)
                    times.append(time.perf_counter_ns() - start)
                    time.sleep(0.0001)
                rounds.append(statistics.median(times))
            # Others use this machine, too.
            found[name] = min(rounds) / 1000
        return found


def work():
    """A thread's work in Python: seconds for it."""
    start = time.perf_counter()
    for _ in range(TURNS):
        sum(number * number for number in range(100_000))
    return time.perf_counter() - start


def beside(what, url, digest, directory):
    """Seconds for a thread's work while something else is fetched again and again beside it, and how often that was."""
    ended = threading.Event()
    fetched = []

    def curl():
        subprocess.run(["curl", "-sS", "--noproxy", "*", "-o", directory / "curl.bin", url], check=True)

    def fetch():
        if what == "twinflash":
            updater = updater_in(directory)
        while not ended.is_set():
            if what == "curl":
                curl()
            else:
                # Another request than the last, or it would be the same.
                wanted = {"fwPackageUri": f"{url}?{len(fetched)}", "fwPackageCheckValue": digest}
                assert updater.handle_method("firmwareUpdate", wanted).status == 200
                updater.wait(300).raise_for_failure()
            fetched.append(what)
        if what == "twinflash":
            updater.close()

    thread = threading.Thread(target=fetch)
    if what != "nothing":
        thread.start()
        time.sleep(0.3)
    took = work()
    ended.set()
    if what != "nothing":
        thread.join()
    return took, len(fetched)


def in_a_process(*arguments):
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def clean(directory):
    """The next one finds the disk as this one did."""
    for path in directory.iterdir():
        if path.is_file() and ("out.bin" in path.name or path.name == "curl.bin"):
            path.unlink()
    os.sync()


def imports(runs):
    code = "import time; start = time.perf_counter(); import twinflash; print(time.perf_counter() - start)"
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(runs + 1)]
    return min(times) * 1000


def line(name, value, wanted, met):
    print(f"{name:58}{value:>16}   {wanted:28}{'' if met else 'MISSED'}", flush=True)


def main(url, digest, directory, runs):
    mib = os.path.getsize(directory / "image.bin") >> 20
    print(f"{mib} MiB over http on this machine, {runs} runs of each in turn, medians; Python {sys.version.split()[0]}")
    times, memories = {way: [] for way in WAYS}, []
    for turn in range(runs + 1):
        for way in WAYS:
            took, grown = in_a_process("--one", way, url, digest, directory)
            if turn:
                times[way].append(took)
                if way == "twinflash":
                    memories.append(grown)
            clean(directory)
    medians = {way: statistics.median(found) for way, found in times.items()}
    own = medians["twinflash"]
    line("download, SHA-256, write and sync", f"{own * 1000:.0f} ms", "", True)
    for way, factor in (("requests, hashlib", 2), ("urllib readinto, hashlib", 1)):
        ratio = medians[way] / own
        line(f"  {way}", f"{medians[way] * 1000:.0f} ms", f"{ratio:.2f} times ours; >= {factor}", ratio >= factor)
    peak = max(memories) / 1024
    line("peak memory over the idle interpreter with the module", f"{peak:.1f} MiB", "<= 12 MiB", peak <= 12)
    for name, micros in in_a_process("--methods").items():
        line(f"{name} that starts nothing (best of 10 rounds)", f"{micros:.1f} us", "< 30 us", micros < 30)
    millis = imports(20)
    line("import twinflash (best of 20)", f"{millis:.1f} ms", "< 30 ms", millis < 30)
    beside_it = {"nothing": [], "curl": [], "twinflash": []}
    fetched = {}
    for turn in range(max(runs // 2, 3) + 1):
        for what, found in beside_it.items():
            took, fetched[what] = in_a_process("--beside", what, url, digest, directory)
            if turn:
                found.append(took)
            clean(directory)
    slowed = {what: statistics.median(found) for what, found in beside_it.items()}
    for what in ("curl", "twinflash"):
        factor = slowed[what] / slowed["nothing"]
        limit = slowed["curl"] / slowed["nothing"]
        wanted = "" if what == "curl" else f"<= {limit:.2f}"
        line(f"another thread beside {what} ({fetched[what]} downloads)", f"{factor:.2f} of alone", wanted, factor <= limit * 1.02)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one")
    parser.add_argument("--beside")
    parser.add_argument("--methods", action="store_true")
    parser.add_argument("url", nargs="?")
    parser.add_argument("digest", nargs="?")
    parser.add_argument("directory", nargs="?", type=pathlib.Path)
    given = parser.parse_args()
    what = (given.url, given.digest, given.directory)
    if given.one:
        print(json.dumps(one(given.one, *what)))
    elif given.beside:
        print(json.dumps(beside(given.beside, *what)))
    elif given.methods:
        print(json.dumps(method_calls()))
    else:
        main(*what, given.runs)
