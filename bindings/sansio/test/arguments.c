/* What bad input gets: a status, and nothing else happens. And a contract that is asked by methods. */
#include <twinflash_sansio.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);         \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

static const twinflash_sansio_now now = { 1000, 1796000000000 };
static twinflash_sansio *engine;
static uint8_t copies[2][32768];
static size_t lengths[2];
static int32_t save_fails, calls_back;

static int32_t load(void *data, int32_t copy, const uint8_t **bytes, size_t *length)
{
    (void)data;
    *bytes = copies[copy];
    *length = lengths[copy];
    return 0;
}

static int32_t save(void *data, int32_t copy, const uint8_t *bytes, size_t length)
{
    (void)data;
    CHECK(length <= sizeof copies[copy]);
    if (calls_back) {
        twinflash_sansio_output output;
        twinflash_sansio_state state;
        CHECK(twinflash_sansio_connected(engine, true, now) == TWINFLASH_SANSIO_STATUS_IN_CALLBACK);
        CHECK(twinflash_sansio_state_of(engine, &state) == TWINFLASH_SANSIO_STATUS_IN_CALLBACK);
        CHECK(!twinflash_sansio_poll(engine, now, &output) && output.kind == TWINFLASH_SANSIO_KIND_NOTHING);
        calls_back = 2;
    }
    if (save_fails)
        return save_fails;
    memcpy(copies[copy], bytes, length);
    lengths[copy] = length;
    return 0;
}

static int32_t inspect(void *data, int32_t *image)
{
    (void)data;
    *image = TWINFLASH_SANSIO_IMAGE_OLD;
    return 0;
}

static int32_t begin(void *data, uint64_t size, uint64_t resume_at, uint64_t *start_at)
{
    (void)data, (void)size;
    *start_at = resume_at + 1; /* nonsense */
    return 0;
}

static int32_t put(void *data, uint64_t offset, const uint8_t *bytes, size_t length)
{
    (void)data, (void)offset, (void)bytes, (void)length;
    return 0;
}

static int32_t sync_bytes(void *data, uint64_t *durable)
{
    (void)data;
    *durable = 0;
    return 0;
}

static int32_t step(void *data)
{
    (void)data;
    return 0;
}

static twinflash_sansio_board board(void)
{
    twinflash_sansio_board made;
    memset(&made, 0, sizeof made);
    made.size = sizeof made;
    made.load = load;
    made.save = save;
    made.inspect = inspect;
    made.begin = begin;
    made.write = put;
    made.sync = sync_bytes;
    made.activate = made.confirm = made.rollback = step;
    return made;
}

static twinflash_sansio_config config(const char *contract)
{
    twinflash_sansio_config made;
    memset(&made, 0, sizeof made);
    made.size = sizeof made;
    made.contract = contract;
    made.current_version = "1.0.0";
    return made;
}

static void configuration(void)
{
    twinflash_sansio_config c = config("devkit"), wrong;
    twinflash_sansio_board b = board(), other;
    engine = (twinflash_sansio *)&b;
    CHECK(twinflash_sansio_new(NULL, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    CHECK(engine == NULL);
    CHECK(twinflash_sansio_new(&c, NULL, now, &engine) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    CHECK(twinflash_sansio_new(&c, &b, now, NULL) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    wrong = c;
    wrong.size = 0;
    CHECK(twinflash_sansio_new(&wrong, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_INVALID_ARGUMENT);
    wrong = c;
    wrong.contract = NULL;
    CHECK(twinflash_sansio_new(&wrong, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    wrong.contract = "no-such-contract";
    CHECK(twinflash_sansio_new(&wrong, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_INVALID_CONFIG);
    wrong.contract = "{\"name\":";
    CHECK(twinflash_sansio_new(&wrong, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_INVALID_CONFIG);
    wrong.contract = "\xff";
    CHECK(twinflash_sansio_new(&wrong, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_INVALID_UTF8);
    wrong = c;
    wrong.current_version = "\xff";
    CHECK(twinflash_sansio_new(&wrong, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_INVALID_UTF8);
    wrong = c;
    wrong.confirm = 3;
    CHECK(twinflash_sansio_new(&wrong, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_INVALID_ARGUMENT);
    other = b;
    other.size = sizeof other - 1;
    CHECK(twinflash_sansio_new(&c, &other, now, &engine) == TWINFLASH_SANSIO_STATUS_INVALID_ARGUMENT);
    other = b;
    other.sync = NULL;
    CHECK(twinflash_sansio_new(&c, &other, now, &engine) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    CHECK(engine == NULL);
}

static void null_engine(void)
{
    const int null = TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT;
    twinflash_sansio_answer answer;
    twinflash_sansio_state state;
    twinflash_sansio_output output;
    memset(&answer, 0, sizeof answer);
    CHECK(twinflash_sansio_connected(NULL, true, now) == null);
    CHECK(twinflash_sansio_twin(NULL, true, "{}", 2, now) == null);
    CHECK(twinflash_sansio_twin_failed(NULL, now) == null);
    CHECK(twinflash_sansio_method(NULL, 1, "m", NULL, 0, now) == null);
    CHECK(twinflash_sansio_report_done(NULL, 1, 204, now) == null);
    CHECK(twinflash_sansio_answered(NULL, &answer, now) == null);
    CHECK(twinflash_sansio_bytes(NULL, "x", 1, now) == null);
    CHECK(twinflash_sansio_ended(NULL, now) == null);
    CHECK(twinflash_sansio_broken(NULL, true, NULL, now) == null);
    CHECK(twinflash_sansio_confirm_now(NULL, now) == null);
    CHECK(twinflash_sansio_cancel(NULL, now) == null);
    CHECK(twinflash_sansio_pause(NULL, true, now) == null);
    CHECK(twinflash_sansio_restart_failed(NULL, now) == null);
    CHECK(twinflash_sansio_state_of(NULL, &state) == null);
    CHECK(twinflash_sansio_wake_at(NULL) == TWINFLASH_SANSIO_UNKNOWN);
    CHECK(!twinflash_sansio_poll(NULL, now, &output) && output.kind == TWINFLASH_SANSIO_KIND_NOTHING);
    CHECK(!twinflash_sansio_poll(NULL, now, NULL));
    twinflash_sansio_free(NULL);
}

/* Everything there is to do, but for what is asked for, which is left in `output`. */
static bool until(int32_t kind, twinflash_sansio_output *output)
{
    while (twinflash_sansio_poll(engine, now, output))
        if (output->kind == kind)
            return true;
        else if (output->kind == TWINFLASH_SANSIO_KIND_REPORT)
            CHECK(twinflash_sansio_report_done(engine, output->id, 204, now) == 0);
        else if (output->kind == TWINFLASH_SANSIO_KIND_READ_TWIN)
            CHECK(twinflash_sansio_twin(engine, true, "{\"desired\":{},\"reported\":{}}", 28, now) == 0);
    return false;
}

static void methods(void)
{
    const char *request = "{\"fwPackageUri\":\"https://example.com/a\",\"fwPackageCheckValue\":\"31c3\",\"fwSize\":9}";
    twinflash_sansio_config c = config("iothub-dm");
    twinflash_sansio_board b = board();
    twinflash_sansio_output output;
    twinflash_sansio_state state;
    twinflash_sansio_answer answer;
    CHECK(twinflash_sansio_new(&c, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_OK);
    CHECK(twinflash_sansio_connected(engine, true, now) == 0);
    CHECK(!until(TWINFLASH_SANSIO_KIND_FETCH, &output));
    CHECK(twinflash_sansio_method(engine, 1, "reboot", "{}", 2, now) == TWINFLASH_SANSIO_STATUS_NOT_MINE);
    CHECK(twinflash_sansio_method(engine, 1, NULL, "{}", 2, now) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    CHECK(twinflash_sansio_method(engine, 1, "\xff", "{}", 2, now) == TWINFLASH_SANSIO_STATUS_INVALID_UTF8);
    CHECK(twinflash_sansio_twin(engine, false, NULL, 2, now) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    CHECK(twinflash_sansio_report_done(engine, 1, -1, now) == TWINFLASH_SANSIO_STATUS_INVALID_ARGUMENT);
    CHECK(twinflash_sansio_report_done(engine, 1, 70000, now) == TWINFLASH_SANSIO_STATUS_INVALID_ARGUMENT);
    CHECK(twinflash_sansio_state_of(engine, NULL) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    /* Nothing is fetched. */
    memset(&answer, 0, sizeof answer);
    CHECK(twinflash_sansio_answered(engine, NULL, now) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    CHECK(twinflash_sansio_answered(engine, &answer, now) == TWINFLASH_SANSIO_STATUS_CLOSED);
    CHECK(twinflash_sansio_bytes(engine, NULL, 1, now) == TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT);
    CHECK(twinflash_sansio_bytes(engine, "x", 1, now) == TWINFLASH_SANSIO_STATUS_CLOSED);
    CHECK(twinflash_sansio_ended(engine, now) == TWINFLASH_SANSIO_STATUS_CLOSED);
    CHECK(twinflash_sansio_broken(engine, false, "\xff", now) == TWINFLASH_SANSIO_STATUS_CLOSED);
    /* An absurd length is none at all; no JSON is a refusal, or a warning. */
    CHECK(twinflash_sansio_method(engine, 2, "firmwareUpdate", "{", (size_t)-1, now) == 0);
    CHECK(until(TWINFLASH_SANSIO_KIND_ANSWER, &output) && output.id == 2 && output.status == 400);
    CHECK(twinflash_sansio_method(engine, 3, "firmwareUpdate", "{", 1, now) == 0);
    CHECK(until(TWINFLASH_SANSIO_KIND_ANSWER, &output) && output.id == 3 && output.status == 400);
    CHECK(twinflash_sansio_twin(engine, false, "no JSON", 7, now) == 0);
    CHECK(until(TWINFLASH_SANSIO_KIND_WARNING, &output) && output.length > 0);
    /* The state cannot be saved: nothing is begun, and who asked is told. */
    save_fails = TWINFLASH_SANSIO_STATUS_STORAGE;
    CHECK(twinflash_sansio_method(engine, 4, "firmwareUpdate", request, strlen(request), now) == 0);
    CHECK(until(TWINFLASH_SANSIO_KIND_ANSWER, &output) && output.id == 4 && output.status == 500);
    save_fails = 0;
    CHECK(!until(TWINFLASH_SANSIO_KIND_FETCH, &output));
    CHECK(twinflash_sansio_state_of(engine, &state) == 0 && state.phase == 0 && state.outcome == 3);
    /* It is accepted; a function of the board may call none of the engine's, and what begin says is no place. */
    calls_back = 1;
    CHECK(twinflash_sansio_method(engine, 5, "firmwareUpdate", request, strlen(request), now) == 0);
    CHECK(calls_back == 2);
    calls_back = 0;
    CHECK(until(TWINFLASH_SANSIO_KIND_ANSWER, &output) && output.id == 5 && output.status == 200);
    CHECK(until(TWINFLASH_SANSIO_KIND_FETCH, &output));
    CHECK(strcmp(output.text, "https://example.com/a") == 0 && output.offset == 0 && output.validator == NULL);
    CHECK(twinflash_sansio_bytes(engine, "123456789", 9, now) == TWINFLASH_SANSIO_STATUS_CLOSED);
    CHECK(until(TWINFLASH_SANSIO_KIND_ENDED, &output) && output.outcome == 3 && output.status == 201);
    CHECK(twinflash_sansio_method(engine, 6, "firmwareUpdate", request, strlen(request), now) == 0);
    CHECK(until(TWINFLASH_SANSIO_KIND_FETCH, &output));
    answer.status = 200;
    answer.length = 9;
    CHECK(twinflash_sansio_answered(engine, &answer, now) == TWINFLASH_SANSIO_STATUS_CLOSED);
    CHECK(until(TWINFLASH_SANSIO_KIND_ENDED, &output) && output.outcome == 3 && output.status == 402);
    CHECK(strstr(output.text, "begin") != NULL);
    /* One that waits is cancelled. */
    CHECK(twinflash_sansio_method(engine, 7, "firmwareUpdate", request, strlen(request), now) == 0);
    CHECK(until(TWINFLASH_SANSIO_KIND_FETCH, &output));
    CHECK(twinflash_sansio_cancel(engine, now) == 0);
    CHECK(until(TWINFLASH_SANSIO_KIND_STOP_FETCH, &output));
    CHECK(twinflash_sansio_bytes(engine, "1", 1, now) == TWINFLASH_SANSIO_STATUS_CLOSED);
    CHECK(!until(TWINFLASH_SANSIO_KIND_FETCH, &output));
    CHECK(twinflash_sansio_state_of(engine, &state) == 0 && state.outcome == 5);
    twinflash_sansio_free(engine);
    engine = NULL;
}

/* One copy is damaged: the other counts. Both are: said so, and an old wish is not run again. */
static void damage(void)
{
    const char *wish = "{\"desired\":{\"firmware\":{\"fwVersion\":\"2.0.0\",\"fwPackageURI\":\"https://example.com/a\","
                       "\"fwPackageCheckValue\":\"31c3\",\"fwSize\":9},\"$version\":2},\"reported\":{}}";
    twinflash_sansio_config c = config("devkit");
    twinflash_sansio_board b = board();
    twinflash_sansio_output output;
    CHECK(lengths[0] > 64 && lengths[1] > 64);
    for (int damaged = 0; damaged < 2; damaged++) {
        copies[damaged][70] ^= 1;
        CHECK(twinflash_sansio_new(&c, &b, now, &engine) == TWINFLASH_SANSIO_STATUS_OK);
        CHECK(until(TWINFLASH_SANSIO_KIND_WARNING, &output) == (damaged == 1));
        if (damaged == 1) {
            CHECK(twinflash_sansio_twin(engine, true, wish, strlen(wish), now) == 0);
            CHECK(!until(TWINFLASH_SANSIO_KIND_FETCH, &output));
        }
        twinflash_sansio_free(engine);
    }
}

int main(void)
{
    configuration();
    null_engine();
    methods();
    damage();
    printf("arguments: all refused as they should be\n");
    return 0;
}
