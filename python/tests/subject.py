"""The package as a subject of tests/scenarios: requests come in as lines of JSON, answers and what happens go out as such. See
"A subject" in tests/scenarios/README.md."""

import dataclasses
import json
import logging
import sys
import threading
import traceback

import twinflash

output = sys.stdout
sys.stdout = sys.stderr  # What is printed is not said to the judge.
saying = threading.Lock()


def say(**line):
    with saying:
        output.write(json.dumps(line) + "\n")
        output.flush()


class Subject:
    """One updater after the other."""

    updater = None

    def start(self, id, config):
        install = config.pop("install")
        policy = twinflash.Policy(**config.pop("policy"))
        file = twinflash.FileInstall(install.pop("file"), restart=install.pop("restart"))
        assert not install
        http = twinflash.Http(**config.pop("http"))
        trust = twinflash.Trust(**config.pop("trust")) if "trust" in config else None
        self.updater = twinflash.Updater(
            **config, install=file, policy=policy, http=http, trust=trust,
            on_event=lambda event: say(of=id, **told(event)), on_restart=lambda restart: say(of=id, restart=restart),
        )  # fmt: skip
        threading.Thread(target=self._serve, args=(id, self.updater), daemon=True).start()

    def _serve(self, id, updater):
        for outbound in updater.reports():
            match_report = isinstance(outbound, twinflash.Report)
            say(of=id, **({"report": dataclasses.asdict(outbound)} if match_report else {"readTwin": True}))

    def method(self, id, name, payload):
        answer = self.updater.handle_method(name, payload.encode())
        return answer and dataclasses.asdict(answer)

    def twin(self, id, complete, json):
        self.updater.handle_twin(json.encode(), complete=complete)

    def connected(self, id, connected):
        self.updater.connected(connected)

    def report_done(self, id, report, status):
        self.updater.report_done(report, status)

    def wait(self, id, seconds):
        return outcome_of(self.updater.wait(seconds))

    def status(self, id):
        status = dataclasses.asdict(self.updater.status())
        status["outcome"] = outcome_of(self.updater.status().outcome)
        status["runningVersion"] = status.pop("running_version")
        return status

    def cancel(self, id):
        return self.updater.cancel()

    def pause(self, id):
        self.updater.pause()

    def resume(self, id):
        self.updater.resume()

    def confirm(self, id):
        self.updater.confirm()

    def close(self, id):
        self.updater.close()

    def guard(self, id, state_dir):
        return str(twinflash.guard(state_dir))


def outcome_of(outcome):
    if outcome is None:
        return None
    failure = dataclasses.asdict(outcome.failure) if outcome.failure else {}
    return {"outcome": outcome.kind, "phase": outcome.phase, **failure}


def told(event):
    return {"warning": event.message} if isinstance(event, twinflash.Warned) else {"event": f"{event} {event!r}"}


class ToTheJudge(logging.Handler):
    """The log is said, too: no secret may be in it."""

    def emit(self, record):
        say(event=record.getMessage())


def answer(subject, id, what, arguments):
    try:
        say(id=id, ok=getattr(subject, what)(id, **arguments))
    except twinflash.TwinflashError as error:
        say(id=id, error={"code": error.code, "message": error.message})
    except Exception:
        say(id=id, error={"code": "fault", "message": traceback.format_exc()})


def main():
    logging.getLogger("twinflash").addHandler(ToTheJudge())
    subject = Subject()
    for line in sys.stdin:
        request = json.loads(line)
        task = (subject, request.pop("id"), request.pop("do"), request)
        # These wait for what other requests bring.
        if task[2] in ("method", "wait"):
            threading.Thread(target=answer, args=task, daemon=True).start()
        else:
            answer(*task)


if __name__ == "__main__":
    main()
