/**
 * twinflash for boards: the update engine for firmware without an operating system. No files, no
 * threads, no sockets, no clock: the application has all of these, in one loop of its own:
 *
 *     twinflash_sansio_new(&config, &board, now(), &engine);
 *     for (;;) {
 *         twinflash_sansio_output output;
 *         while (twinflash_sansio_poll(engine, now(), &output))
 *             switch (output.kind) {
 *             case TWINFLASH_SANSIO_KIND_REPORT: ...    send output.text to the hub
 *             case TWINFLASH_SANSIO_KIND_READ_TWIN: ... ask the hub for the twin
 *             case TWINFLASH_SANSIO_KIND_FETCH: ...     ask a server for output.text
 *             case TWINFLASH_SANSIO_KIND_RESTART: ...   reset
 *             }
 *         wait for the network, until twinflash_sansio_wake_at(engine) at most, and hand over what came:
 *         twinflash_sansio_connected, _twin, _report_done; _answered, _bytes, _ended
 *     }
 *
 * examples/c/board.c is such a program. An image is checked (size, CRC-16, CRC-32, SHA-256) while its
 * bytes come, is activated only where all checks hold, and has to prove itself after the restart. What
 * is remembered of it is saved before each step, in two copies written in turn: a power cut at any
 * moment, also in the middle of a save or of a write, loses at most the bytes since the last checkpoint.
 *
 * Rules that hold everywhere:
 *
 * - What is handed in stays the caller's, and is copied where it is needed longer than the call.
 * - Texts are UTF-8 and end with a zero, but where a length is given. Lengths are in bytes.
 * - NULL where it may not be is an error, not a crash. A pointer to something freed is not noticed.
 * - Different engines may be used from different threads at once, one engine from one at a time.
 * - The library needs malloc, calloc, realloc, free, abort, and the mem functions of C.
 *   An engine has some 20 KiB while it waits, and twice that for moments; where there is no memory
 *   left, it calls abort().
 */
