/**
 * twinflash: firmware updates for devices on Azure IoT Hub.
 *
 * An updater takes direct methods and twins in and gives reports out; between the two it downloads,
 * verifies and installs an image, through power cuts and bad networks. Either an Azure SDK carries
 * these, in a handful of calls (see examples/c/device_sdk.c), or twinflash_device connects by itself:
 *
 *     twinflash_error error;
 *     twinflash_updater *updater;
 *     twinflash_device *device;
 *     twinflash_builder *builder = twinflash_builder_new();
 *     twinflash_builder_set_string(builder, "state_dir", "/var/lib/fw", NULL);
 *     twinflash_builder_set_string(builder, "current_version", "1.0.0", NULL);
 *     twinflash_builder_set_string(builder, "install.file", "/opt/app/app.bin", NULL);
 *     if (twinflash_builder_start(builder, &updater, &error) != TWINFLASH_STATUS_OK
 *         || twinflash_device_connect(updater, connection_string, NULL, NULL, NULL, &device, &error)
 *             != TWINFLASH_STATUS_OK)
 *         fprintf(stderr, "%s\n", error.message);
 *     twinflash_builder_free(builder);
 *
 * Rules that hold everywhere:
 *
 * - Every function that can fail returns a twinflash_status, 0 for success, and takes as its last
 *   argument a twinflash_error to fill in, which may be NULL (twinflash_updater_free and
 *   twinflash_device_free take none).
 * - What a function ending in _new, _start, _connect or _state, or with _next_ in it, gives is the caller's, to be
 *   given to the _free of its type, once. _free(NULL) does nothing. What is handed in stays the
 *   caller's, and is copied where it is needed longer than the call.
 * - Texts are UTF-8 and end with a zero, but where a length is given. Lengths are in bytes.
 * - NULL where it may not be, text that is not UTF-8 and the like are an error, not a crash. A pointer
 *   to something freed is not noticed.
 * - Functions may be called from any thread. Callbacks come on threads of the library, each
 *   of them one at a time, with no lock held that a call could wait for. A callback returns: no C++
 *   exception and no longjmp() leaves it. There is no global state, and no signal handler is set.
 * - A child of fork() must not use what it inherited; fork() and then exec() is fine.
 */
