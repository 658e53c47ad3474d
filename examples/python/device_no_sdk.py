"""The tutorial's device without an SDK: twinflash connects by itself.

    twinflash hub --device device1
    python device_no_sdk.py --connection 'HostName=…' --ca …/ca.pem --file app.bin

Ends with Ctrl-C.
"""

import argparse

import twinflash


def on_method(name, payload):
    """What is not the updater's."""
    return (200, "rebooting") if name == "reboot" else None


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--connection", required=True, help="the device's connection string, or @FILE")
    arguments.add_argument("--ca", help="the hub's certificate authorities (not for Azure)")
    arguments.add_argument("--certificate", help="of a device whose connection string says x509=true; the key may be in it")
    arguments.add_argument("--key", help="the certificate's key")
    arguments.add_argument("--file", required=True, help="what is updated")
    arguments.add_argument("--state", default="twinflash-state", help="where an update survives a restart")
    arguments.add_argument("--image-ca", help="the certificate authorities of the images' server")
    arguments.add_argument("--allow-http", action="store_true", help="also images over plain http, to try it")
    arguments.add_argument("--contract", default="python-firmware-status", help="how it is asked and reports")
    given = arguments.parse_args()

    updater = twinflash.Updater(
        state_dir=given.state,
        contract=given.contract,
        current_version="1.0.0",
        install=twinflash.FileInstall(given.file),
        http=twinflash.Http(ca=given.image_ca),
        policy=twinflash.Policy(allow_http=given.allow_http),
    )
    events = updater.events()
    identity = {"client_certificate": given.certificate, "client_key": given.key}
    with twinflash.Device(given.connection, updater, ca=given.ca, on_method=on_method, **identity):
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
