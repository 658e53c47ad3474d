"""Very many updaters in one process."""

import os

import pytest

from test_process import ended, program  # noqa: F401

# The full run makes ten thousand.
MANY = 10_000 if "TWINFLASH_FULL" in os.environ else 1000


@pytest.mark.timeout(240)
def test_very_many_updaters_leave_nothing(program):  # noqa: F811
    """Half of them closed, half only dropped; each with an event and a method that was called."""
    code = f"many = {MANY}" + """
def held():
    with open("/proc/self/status", encoding="ascii") as status:
        values = dict(line.split(":", 1) for line in status)
    return len(os.listdir("/proc/self/fd")), int(values["Threads"]), int(values["VmRSS"].split()[0])

def one(close):
    made = twinflash.Updater(state_dir=directory + "/own", install=twinflash.FileInstall(directory + "/own.bin"),
                             on_event=lambda event: None)
    events = made.events()
    made.handle_method("firmwareUpdate", {"fwPackageUri": "test.com"})
    assert isinstance(events.next(10), twinflash.Refused)
    if close:
        made.close()

updater.close()
for number in range(100):
    one(number % 2)
time.sleep(0.5)
before = held()
for number in range(many):
    one(number % 2)
fewer = lambda: held()[0] <= before[0] and held()[1] <= before[1]
conftest.eventually(fewer, f"descriptors and threads: {before}, {held()}")
assert held()[2] - before[2] < 4096, f"KiB in {many} updaters: {before}, {held()}"
print(*before, *held(), file=sys.stdout)
"""
    status, out, error = ended(program(code), 220)
    assert (status, error) == (0, "")
    print("descriptors, threads, KiB, before and after:", out)
