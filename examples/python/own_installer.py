"""An installer of one's own: the image is a zip of an application's release, which is unpacked beside the one that runs and switched to
by a link. twinflash downloads, verifies, resumes and reports; this says how what has come is installed.

    twinflash hub --device device1
    python own_installer.py --connection 'HostName=…' --ca …/ca.pem --directory /opt/app

    /opt/app/current            a link to the release that runs
    /opt/app/previous           a link to the one before, to be gone back to; until the next update begins
    /opt/app/releases/a, b      both, in turn

Asked by the direct method firmwareUpdate, contract iothub-dm. Ends with Ctrl-C.
"""

import argparse
import os
import pathlib
import shutil
import zipfile

import twinflash


class ReleaseInstall(twinflash.Installer):
    """Each step but `write` may be taken again after a power cut in the middle of it, and ends in the same state."""

    restart = "none"  # The application notices by itself that the link has changed; else "exit" or "system".

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.current, self.previous = self.directory / "current", self.directory / "previous"
        self.incoming = self.directory / "incoming.zip"
        self.file = None
        (self.directory / "releases").mkdir(parents=True, exist_ok=True)

    def inspect(self):
        if self.previous.is_symlink() and os.readlink(self.previous) != self._runs():
            return "new"
        return "partial" if self.incoming.exists() else "old"

    def begin(self, image, resume_at):
        self._close()
        # What runs is now the old one.
        self._remove(self.previous)
        if image.size is not None and shutil.disk_usage(self.directory).free < 3 * image.size:
            raise twinflash.TwinflashError(f"no room for {image.size} bytes and what is in them", code="no-space")
        there = self.incoming.exists()
        start = resume_at if there and self.incoming.stat().st_size >= resume_at else 0
        self.file = open(self.incoming, "r+b" if there else "w+b")
        self.file.truncate(start)
        return start

    def write(self, offset, data):
        self.file.seek(offset)
        self.file.write(data)

    def sync(self):
        self.file.flush()
        os.fdatasync(self.file.fileno())
        return self.file.tell()

    def finish(self):
        self._close()
        release = self.directory / self._other()
        shutil.rmtree(release, ignore_errors=True)
        try:
            with zipfile.ZipFile(self.incoming) as archive:
                archive.extractall(release)
        except zipfile.BadZipFile as error:
            raise twinflash.TwinflashError(f"the image is no zip: {error}") from error
        os.sync()

    def activate(self):
        if self.inspect() != "new":
            new = self._other()
            self._link(self.previous, self._runs())
            self._link(self.current, new)

    def confirm(self):
        self._remove(self.incoming)

    def rollback(self):
        if self.inspect() == "new":
            old = os.readlink(self.previous)
            if old == "none":
                self.current.unlink()
            else:
                self._link(self.current, old)
        self._end()

    def abort(self):
        self._end()

    def _runs(self):
        return os.readlink(self.current) if self.current.is_symlink() else "none"

    def _other(self):
        return "releases/b" if self._runs() == "releases/a" else "releases/a"

    def _end(self):
        self._close()
        self._remove(self.incoming, self.previous)

    def _remove(self, *files):
        for file in files:
            file.unlink(missing_ok=True)
        self._durable()

    def _link(self, link, target):
        """Made or replaced in one step."""
        new = link.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        os.replace(new, link)
        self._durable()

    def _durable(self):
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _close(self):
        if self.file is not None:
            self.file.close()
            self.file = None


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--connection", required=True, help="the device's connection string, or @FILE")
    arguments.add_argument("--ca", help="the hub's certificate authorities (not for Azure)")
    arguments.add_argument("--directory", required=True, help="where releases are")
    arguments.add_argument("--state", default="twinflash-state", help="where an update survives a restart")
    arguments.add_argument("--image-ca", help="the certificate authorities of the images' server")
    arguments.add_argument("--allow-http", action="store_true", help="also images over plain http, to try it")
    given = arguments.parse_args()

    updater = twinflash.Updater(
        state_dir=given.state,
        install=ReleaseInstall(given.directory),
        http=twinflash.Http(ca=given.image_ca),
        policy=twinflash.Policy(allow_http=given.allow_http),
    )
    events = updater.events()
    with twinflash.Device(given.connection, updater, ca=given.ca):
        try:
            for event in events:
                if isinstance(event, twinflash.Connected):
                    print("ready", flush=True)
                elif not isinstance(event, twinflash.Progress):
                    print(event, flush=True)
        except KeyboardInterrupt:
            print("stopped", flush=True)


if __name__ == "__main__":
    main()
