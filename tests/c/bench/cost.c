/* What the library costs an application: cost none|updater|calls DIRECTORY
 *
 * "none" and "updater" print the KiB of memory that the process has while it is idle, without an updater and
 * with one: what is resident, and what of that is its own, not pages of files; "calls" the nanoseconds from a
 * method call that starts nothing to its answer: of a request that is refused, and of the
 * question how the update stands. */
#include "../check.h"
#include "twinflash.h"

#include <time.h>
#include <unistd.h>

enum { CALLS = 5000 };

static twinflash_error error;

static void print_memory(void)
{
    char line[256];
    long resident = 0, own = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Rss: %ld kB", &resident) != 1)
            sscanf(line, "Anonymous: %ld kB", &own);
    CHECK(fclose(file) == 0 && resident > 0 && own > 0);
    printf("%ld %ld\n", resident, own);
}

static twinflash_updater *started(const char *directory)
{
    char path[512];
    twinflash_updater *updater;
    twinflash_builder *builder = twinflash_builder_new();
    snprintf(path, sizeof path, "%s/state", directory);
    CHECK_OK(twinflash_builder_set_string(builder, "state_dir", path, &error), error);
    snprintf(path, sizeof path, "%s/app.bin", directory);
    CHECK_OK(twinflash_builder_set_string(builder, "install.file", path, &error), error);
    CHECK_OK(twinflash_builder_set_string(builder, "current_version", "1.0.0", &error), error);
    CHECK_OK(twinflash_builder_start(builder, &updater, &error), error);
    twinflash_builder_free(builder);
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    return updater;
}

/* As a transport does: whatever is to be sent is sent, until there is nothing for a second. */
static void serve(twinflash_updater *updater)
{
    twinflash_outbound *outbound;
    while (twinflash_updater_next_outbound(updater, 1000, &outbound, &error) == TWINFLASH_STATUS_OK) {
        const char *twin = "{\"desired\":{\"$version\":1},\"reported\":{\"$version\":1}}";
        if (outbound->kind == TWINFLASH_OUTBOUND_KIND_READ_TWIN)
            CHECK_OK(twinflash_updater_handle_twin(updater, true, twin, strlen(twin), &error), error);
        else
            CHECK_OK(twinflash_updater_report_done(updater, outbound->id, 204, &error), error);
        twinflash_outbound_free(outbound);
    }
}

static int by_value(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The median of many calls with a pause between two: a hub's do not come back to back, where one would wait for what the
 * updater's thread still does for the one before. */
static double call(twinflash_updater *updater, const char *name, const char *payload, int expected)
{
    static double calls[CALLS];
    const struct timespec pause = { 0, 100000 };
    for (int i = 0; i < CALLS; i++) {
        struct timespec begun, ended;
        twinflash_answer answer;
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_MONOTONIC, &begun);
        CHECK_OK(twinflash_updater_handle_method(updater, name, payload, strlen(payload), &answer, &error),
            error);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        CHECK(answer.status == expected);
        free(answer.payload);
        calls[i] = (double)(ended.tv_sec - begun.tv_sec) * 1e9 + (double)(ended.tv_nsec - begun.tv_nsec);
    }
    qsort(calls, CALLS, sizeof *calls, by_value);
    return calls[CALLS / 2];
}

int main(int argc, char **argv)
{
    twinflash_updater *updater;
    CHECK(argc == 3);
    if (strcmp(argv[1], "none") == 0) {
        /* Linked with the library and used a little, as an application that has one. */
        CHECK(twinflash_version()[0] != 0);
        print_memory();
        return 0;
    }
    updater = started(argv[2]);
    serve(updater);
    if (strcmp(argv[1], "updater") == 0)
        print_memory();
    else
        printf("%.0f %.0f\n",
            call(updater, "firmwareUpdate", "{\"fwPackageUri\":\"ftp://nowhere\",\"fwPackageCheckValue\":\"31c3\"}",
                400),
            call(updater, "getFirmwareUpdateStatus", "{}", 200));
    CHECK(twinflash_updater_free(updater) == TWINFLASH_STATUS_OK);
    return 0;
}
