/* Whole updates: the application's own transport, its own installer, its own threads.
 *
 * Argument: an empty directory. Environment: TEST_SERVER, the URL below which image.bin is, and
 * slow/image.bin, so much slower that there is time to do things meanwhile; TEST_IMAGE, its file. */
#include "whole.h"

#include <pthread.h>

static void polled_from_one_thread(void)
{
    flash *f = new_flash();
    twinflash_updater *updater = started(builder("polled", f, TWINFLASH_RESTART_NONE));
    twinflash_event *ended;
    twinflash_state *state;
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    ask(updater, "/image.bin");
    serve(updater, TWINFLASH_EVENT_KIND_ENDED, 0, &ended);
    CHECK(ended->outcome == TWINFLASH_OUTCOME_COMPLETED && ended->status == TWINFLASH_STATUS_OK);
    twinflash_event_free(ended);
    has_image(f);
    CHECK_OK(twinflash_updater_state(updater, &state, &error), error);
    CHECK(state->outcome == TWINFLASH_OUTCOME_COMPLETED);
    CHECK(state->retry_status == TWINFLASH_STATUS_OK && state->retry_message == NULL);
    CHECK(strcmp(state->running_version, "2.0.0") == 0);
    twinflash_state_free(state);
    gone(updater, f);
}

/* An application that calls back in wherever it can. */
typedef struct application {
    twinflash_updater *updater, *other;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int events, outbounds, restarts, answers, logs, installs, destroyed, confirming;
    twinflash_outcome outcome;
    bool connected;
} application;

static void everything_that_waits_is_refused(application *a)
{
    const int refused = TWINFLASH_STATUS_IN_CALLBACK;
    twinflash_answer answer;
    twinflash_error why;
    /* The handle is there before any callback is. */
    CHECK(a->updater != NULL);
    CHECK_ERROR(twinflash_updater_handle_method(a->updater, "firmwareUpdate", "{}", 2, &answer, &why),
        refused, why, "handle_method");
    CHECK_ERROR(twinflash_updater_wait(a->updater, -1, NULL, &why), refused, why, "wait");
    CHECK_ERROR(twinflash_updater_flush(a->updater, -1, &why), refused, why, "flush");
    CHECK_ERROR(twinflash_updater_close(a->updater, &why), refused, why, "close");
    CHECK(twinflash_updater_free(a->updater) == refused);
}

static void count(application *a, int *counter)
{
    CHECK(pthread_mutex_lock(&a->lock) == 0);
    ++*counter;
    CHECK(pthread_cond_broadcast(&a->changed) == 0);
    CHECK(pthread_mutex_unlock(&a->lock) == 0);
}

static void on_answer(twinflash_answer *answer, void *data)
{
    application *a = (application *)data;
    CHECK(answer->status == 200 && answer->payload_length == strlen(answer->payload));
    everything_that_waits_is_refused(a);
    free(answer->payload); /* kept, and freed here */
    answer->payload = NULL;
    count(a, &a->answers);
}

/* Of the other updater: on this thread, and so inside a callback of the first, or on its own. */
static __thread bool inside;

static void on_answer_of_the_other(twinflash_answer *answer, void *data)
{
    application *a = (application *)data;
    CHECK(answer->status == 200);
    if (inside)
        everything_that_waits_is_refused(a);
    count(a, &a->answers);
}

static void call_back_in(application *a)
{
    const char *name = "getFirmwareUpdateStatus";
    twinflash_state *state;
    twinflash_error why;
    everything_that_waits_is_refused(a);
    CHECK_OK(twinflash_updater_state(a->updater, &state, &why), why);
    twinflash_state_free(state);
    CHECK_OK(twinflash_updater_handle_method_then(a->updater, name, NULL, 0, on_answer, a, &why), why);
    /* A callback of another updater inside does not hide that this is one of the first. */
    inside = true;
    CHECK_OK(twinflash_updater_handle_method_then(a->other, name, NULL, 0, on_answer_of_the_other, a,
        &why), why);
    inside = false;
    everything_that_waits_is_refused(a);
}

static void on_event(const twinflash_event *event, void *data)
{
    application *a = (application *)data;
    call_back_in(a);
    CHECK(pthread_mutex_lock(&a->lock) == 0);
    if (event->kind == TWINFLASH_EVENT_KIND_ENDED)
        a->outcome = event->outcome;
    CHECK(pthread_mutex_unlock(&a->lock) == 0);
    count(a, event->kind == TWINFLASH_EVENT_KIND_PHASE && event->phase == TWINFLASH_PHASE_CONFIRMING
            ? &a->confirming : &a->events);
}

static void on_outbound(const twinflash_outbound *outbound, void *data)
{
    application *a = (application *)data;
    twinflash_error why;
    call_back_in(a);
    if (outbound->kind == TWINFLASH_OUTBOUND_KIND_READ_TWIN)
        CHECK_OK(twinflash_updater_handle_twin(a->updater, true, "{\"desired\":{},\"reported\":{}}", 28,
            &why), why);
    else
        CHECK_OK(twinflash_updater_report_done(a->updater, outbound->id, 204, &why), why);
    count(a, &a->outbounds);
}

static int32_t on_restart(twinflash_restart restart, twinflash_error *why, void *data)
{
    application *a = (application *)data;
    (void)why;
    CHECK(restart == TWINFLASH_RESTART_EXIT);
    call_back_in(a);
    count(a, &a->restarts);
    return 0;
}

static void on_log(twinflash_level level, const char *line, void *data)
{
    application *a = (application *)data;
    CHECK(level <= TWINFLASH_LEVEL_INFO && line[0] != 0);
    everything_that_waits_is_refused(a);
    count(a, &a->logs);
}

static void on_install(void *data)
{
    application *a = (application *)data;
    call_back_in(a);
    count(a, &a->installs);
}

static void on_destroy(void *data)
{
    application *a = (application *)data;
    /* Any updater's. */
    CHECK(twinflash_updater_wait(a->other, -1, NULL, NULL) == TWINFLASH_STATUS_IN_CALLBACK);
    count(a, &a->destroyed);
}

static void until(application *a, const int *counter, int value)
{
    CHECK(pthread_mutex_lock(&a->lock) == 0);
    while (*counter < value)
        CHECK(pthread_cond_wait(&a->changed, &a->lock) == 0);
    CHECK(pthread_mutex_unlock(&a->lock) == 0);
}

static void start_application(application *a, flash *f)
{
    twinflash_builder *made = builder("callbacks", f, TWINFLASH_RESTART_EXIT);
    a->updater = NULL;
    a->destroyed = 0;
    CHECK_OK(twinflash_builder_on_event(made, on_event, a, on_destroy, &error), error);
    CHECK_OK(twinflash_builder_on_outbound(made, on_outbound, a, on_destroy, &error), error);
    CHECK_OK(twinflash_builder_on_restart(made, on_restart, a, on_destroy, &error), error);
    CHECK_OK(twinflash_builder_on_log(made, TWINFLASH_LEVEL_INFO, on_log, a, on_destroy, &error),
        error);
    CHECK_OK(twinflash_builder_start(made, &a->updater, &error), error);
    twinflash_builder_free(made);
    CHECK_OK(twinflash_updater_connected(a->updater, true, &error), error);
}

static void callbacks_call_back_in(void)
{
    flash *f = new_flash(), *g = new_flash();
    application a;
    twinflash_outcome outcome;
    memset(&a, 0, sizeof a);
    CHECK(pthread_mutex_init(&a.lock, NULL) == 0 && pthread_cond_init(&a.changed, NULL) == 0);
    a.other = started(builder("other", g, TWINFLASH_RESTART_NONE));
    f->in_each = on_install;
    f->in_each_data = &a;
    start_application(&a, f);
    ask(a.updater, "/image.bin");
    until(&a, &a.restarts, 1);
    CHECK(twinflash_updater_free(a.updater) == TWINFLASH_STATUS_OK);
    CHECK(a.destroyed == 4 && f->destroyed == 1 && a.installs > 5 && f->running == 0);

    /* The program is started again: the new version runs, is connected, and has proved itself. */
    f->running = f->next;
    start_application(&a, f);
    CHECK_OK(twinflash_updater_wait(a.updater, 60000, &outcome, &error), error);
    CHECK(outcome == TWINFLASH_OUTCOME_COMPLETED && a.outcome == outcome);
    CHECK_OK(twinflash_updater_flush(a.updater, -1, &error), error);
    has_image(f);
    CHECK(twinflash_updater_free(a.updater) == TWINFLASH_STATUS_OK);
    CHECK(a.destroyed == 4 && f->destroyed == 2);
    CHECK(a.logs > 0 && a.events > 0 && a.outbounds > 0 && a.answers > 0 && a.confirming > 0);
    gone(a.other, g);
    free(f);
    CHECK(pthread_mutex_destroy(&a.lock) == 0 && pthread_cond_destroy(&a.changed) == 0);
}

/* Not guarded by the lock: what is written before the connection is told, the callback sees. */
static void on_outbound_once_connected(const twinflash_outbound *outbound, void *data)
{
    application *a = (application *)data;
    CHECK(outbound->kind == TWINFLASH_OUTBOUND_KIND_READ_TWIN && a->connected);
    count(a, &a->outbounds);
}

static void nothing_is_sent_before_the_connection(void)
{
    flash *f = new_flash();
    twinflash_builder *made = builder("silent", f, TWINFLASH_RESTART_NONE);
    application a;
    memset(&a, 0, sizeof a);
    CHECK(pthread_mutex_init(&a.lock, NULL) == 0 && pthread_cond_init(&a.changed, NULL) == 0);
    CHECK_OK(twinflash_builder_on_outbound(made, on_outbound_once_connected, &a, NULL, &error), error);
    a.updater = started(made);
    CHECK_OK(twinflash_updater_flush(a.updater, -1, &error), error);
    a.connected = true;
    CHECK_OK(twinflash_updater_connected(a.updater, true, &error), error);
    until(&a, &a.outbounds, 1);
    gone(a.updater, f);
    CHECK(pthread_mutex_destroy(&a.lock) == 0 && pthread_cond_destroy(&a.changed) == 0);
}

static void *serve_to_the_end(void *updater)
{
    serve((twinflash_updater *)updater, TWINFLASH_EVENT_KIND_ENDED, 0, NULL);
    return NULL;
}

static void two_in_one_process(void)
{
    flash *f[2];
    twinflash_updater *updater[2];
    pthread_t thread;
    for (int i = 0; i < 2; i++) {
        f[i] = new_flash();
        updater[i] = started(builder(i ? "second" : "first", f[i], TWINFLASH_RESTART_NONE));
        CHECK_OK(twinflash_updater_connected(updater[i], true, &error), error);
    }
    ask(updater[0], "/image.bin");
    f[1]->write_fails = TWINFLASH_STATUS_STORAGE;
    ask(updater[1], "/image.bin");
    CHECK(pthread_create(&thread, NULL, serve_to_the_end, updater[1]) == 0);
    serve(updater[0], TWINFLASH_EVENT_KIND_ENDED, 0, NULL);
    CHECK(pthread_join(thread, NULL) == 0);
    for (int i = 0; i < 2; i++) {
        twinflash_state *state;
        CHECK_OK(twinflash_updater_state(updater[i], &state, &error), error);
        CHECK(state->outcome == (i ? TWINFLASH_OUTCOME_FAILED : TWINFLASH_OUTCOME_COMPLETED));
        /* A callback that fails: its own number, its own words. */
        if (i)
            CHECK(state->status == TWINFLASH_STATUS_STORAGE
                && strstr(state->message, "bank 1 is worn out at 0") != NULL);
        twinflash_state_free(state);
    }
    has_image(f[0]);
    /* The bank is given up after the end is told. */
    CHECK_OK(twinflash_updater_close(updater[1], &error), error);
    CHECK(f[1]->next == 0 && f[1]->size[1] == 0);
    gone(updater[0], f[0]);
    gone(updater[1], f[1]);
}

static void paused_resumed_cancelled(void)
{
    flash *f = new_flash();
    twinflash_updater *updater = started(builder("paused", f, TWINFLASH_RESTART_NONE));
    twinflash_state *state;
    twinflash_outcome outcome;
    twinflash_answer answer;
    twinflash_event *event;
    bool cancelled = false;
    uint64_t there;
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    ask(updater, "/slow/image.bin");
    serve(updater, TWINFLASH_EVENT_KIND_PROGRESS, 0, NULL);
    CHECK_OK(twinflash_updater_pause(updater, &error), error);
    CHECK_OK(twinflash_updater_flush(updater, 30000, &error), error);
    CHECK_OK(twinflash_updater_state(updater, &state, &error), error);
    there = state->bytes;
    while (twinflash_updater_next_event(updater, 0, &event, &error) == TWINFLASH_STATUS_OK)
        twinflash_event_free(event);
    CHECK(state->paused && state->phase == TWINFLASH_PHASE_DOWNLOADING);
    CHECK(there > 0 && there < image_size && there == f->size[1] && state->size == image_size);
    twinflash_state_free(state);
    CHECK_OK(twinflash_updater_resume(updater, &error), error);
    serve(updater, TWINFLASH_EVENT_KIND_PROGRESS, 0, NULL);
    CHECK(f->begun_at == there);
    CHECK_OK(twinflash_updater_handle_method(updater, "getFirmwareUpdateStatus", NULL, 0, &answer,
        &error), error);
    CHECK(answer.status == 200 && strstr(answer.payload, "downloading") != NULL);
    free(answer.payload);
    CHECK_OK(twinflash_updater_cancel(updater, &cancelled, &error), error);
    CHECK(cancelled);
    CHECK_OK(twinflash_updater_flush(updater, 30000, &error), error);
    serve(updater, TWINFLASH_EVENT_KIND_ENDED, 0, NULL);
    /* The hub is not told any more: the outcome comes all the same. */
    CHECK_OK(twinflash_updater_connected(updater, false, &error), error);
    CHECK_OK(twinflash_updater_wait(updater, 30000, &outcome, &error), error);
    CHECK(outcome == TWINFLASH_OUTCOME_CANCELLED && f->size[1] == 0);
    CHECK_OK(twinflash_updater_cancel(updater, &cancelled, &error), error);
    CHECK(!cancelled);
    gone(updater, f);
}

static void closed_in_mid_download(void)
{
    flash *f = new_flash();
    twinflash_updater *updater = started(builder("closed", f, TWINFLASH_RESTART_NONE));
    twinflash_outbound *outbound;
    twinflash_event *ended;
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    ask(updater, "/slow/image.bin");
    serve(updater, TWINFLASH_EVENT_KIND_PROGRESS, 0, NULL);
    CHECK_OK(twinflash_updater_close(updater, &error), error);
    while (twinflash_updater_next_outbound(updater, -1, &outbound, &error) == TWINFLASH_STATUS_OK)
        twinflash_outbound_free(outbound);
    CHECK_ERROR(twinflash_updater_cancel(updater, NULL, &error), TWINFLASH_STATUS_CLOSED, error, "closed");
    CHECK_ERROR(twinflash_updater_defer(updater, 1, NULL, &error), TWINFLASH_STATUS_CLOSED, error, "closed");
    CHECK_ERROR(twinflash_updater_wait(updater, -1, NULL, &error), TWINFLASH_STATUS_CLOSED, error, "closed");
    CHECK(twinflash_updater_free(updater) == TWINFLASH_STATUS_OK);
    CHECK(f->destroyed == 1 && f->size[1] > 0 && f->size[1] < image_size);
    f->destroyed = 0;
    /* The next start goes on where it was. */
    updater = started(builder("closed", f, TWINFLASH_RESTART_NONE));
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    serve(updater, TWINFLASH_EVENT_KIND_ENDED, 0, &ended);
    CHECK(ended->outcome == TWINFLASH_OUTCOME_COMPLETED && f->begun_at > 0);
    twinflash_event_free(ended);
    has_image(f);
    gone(updater, f);
}

static void tried_again(void)
{
    flash *f = new_flash();
    twinflash_updater *updater = started(builder("retry", f, TWINFLASH_RESTART_NONE));
    twinflash_event *retry;
    twinflash_state *state;
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    ask(updater, "http://127.0.0.1:1/image.bin");
    serve(updater, TWINFLASH_EVENT_KIND_RETRY, 0, &retry);
    CHECK(retry->status == TWINFLASH_STATUS_NETWORK && retry->after_seconds > 0);
    twinflash_event_free(retry);
    CHECK_OK(twinflash_updater_state(updater, &state, &error), error);
    CHECK(state->retry_status == TWINFLASH_STATUS_NETWORK && state->retry_attempts >= 1);
    CHECK(strstr(state->retry_message, "127.0.0.1") != NULL);
    twinflash_state_free(state);
    gone(updater, f);
}

/* The application fetches; one thread does everything. */
static void offered(void)
{
    flash *f = new_flash();
    twinflash_builder *made = builder("offered", f, TWINFLASH_RESTART_NONE);
    twinflash_updater *updater;
    twinflash_wanted *wanted;
    twinflash_response response;
    size_t at = 0, taken = 7;
    uint64_t id;
    CHECK_OK(twinflash_builder_set_string(made, "source", "offered", &error), error);
    updater = started(made);
    CHECK(twinflash_updater_next_wanted(updater, 0, &wanted, &error) == TWINFLASH_STATUS_TIMEOUT);
    CHECK(wanted == NULL);
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    ask(updater, "https://example.com/image.bin");
    serve(updater, TWINFLASH_EVENT_KIND_WANTED, 0, NULL);
    CHECK_OK(twinflash_updater_next_wanted(updater, 30000, &wanted, &error), error);
    CHECK(strcmp(wanted->uri, "https://example.com/image.bin?sig=secret") == 0);
    CHECK(wanted->offset == 0 && wanted->validator == NULL && !wanted->manifest);
    id = wanted->id;
    twinflash_wanted_free(wanted);
    memset(&response, 0, sizeof response);
    CHECK_ERROR(twinflash_updater_offer_response(updater, id, NULL, &error),
        TWINFLASH_STATUS_NULL_ARGUMENT, error, "response");
    CHECK_ERROR(twinflash_updater_offer_response(updater, id, &response, &error),
        TWINFLASH_STATUS_INVALID_ARGUMENT, error, "response.size is 0");
    response.size = sizeof response;
    response.status = -200;
    CHECK_ERROR(twinflash_updater_offer_response(updater, id, &response, &error),
        TWINFLASH_STATUS_INVALID_ARGUMENT, error, "-200");
    response.status = 200;
    response.total = image_size;
    response.validator = "\xff";
    CHECK_ERROR(twinflash_updater_offer_response(updater, id, &response, &error),
        TWINFLASH_STATUS_INVALID_UTF8, error, "validator");
    response.validator = "\"one\"";
    CHECK_ERROR(twinflash_updater_offer(updater, id, 0, image, 10, 0, &taken, &error),
        TWINFLASH_STATUS_INVALID_ARGUMENT, error, "answer");
    CHECK(taken == 0);
    CHECK_OK(twinflash_updater_offer_response(updater, id, &response, &error), error);
    CHECK_ERROR(twinflash_updater_offer(updater, id, 5, image, 10, 0, &taken, &error),
        TWINFLASH_STATUS_INVALID_ARGUMENT, error, "byte 0 comes next");
    CHECK_ERROR(twinflash_updater_offer(updater, id, 0, NULL, 10, 0, &taken, &error),
        TWINFLASH_STATUS_NULL_ARGUMENT, error, "data");
    CHECK_ERROR(twinflash_updater_offer(updater, id, 0, image, 10, 0, NULL, &error),
        TWINFLASH_STATUS_NULL_ARGUMENT, error, "taken");
    while (at < image_size / 2) {
        CHECK_OK(twinflash_updater_offer(updater, id, at, image + at, image_size / 2 - at, 1000, &taken,
            &error), error);
        at += taken;
    }
    /* The connection breaks; what is there is not asked for again. */
    CHECK_ERROR(twinflash_updater_offer_failed(updater, id, TWINFLASH_STATUS_NETWORK, NULL, true, &error),
        TWINFLASH_STATUS_NULL_ARGUMENT, error, "why");
    CHECK_OK(twinflash_updater_offer_failed(updater, id, TWINFLASH_STATUS_NETWORK, "reset by peer", true,
        &error), error);
    CHECK_OK(twinflash_updater_next_wanted(updater, 30000, &wanted, &error), error);
    CHECK(wanted->id != id && wanted->offset == at && strcmp(wanted->validator, "\"one\"") == 0);
    CHECK_ERROR(twinflash_updater_offer(updater, id, at, image, 10, 0, &taken, &error),
        TWINFLASH_STATUS_NOT_WANTED, error, "not wanted");
    id = wanted->id;
    twinflash_wanted_free(wanted);
    response.status = 206;
    response.offset = at;
    CHECK_OK(twinflash_updater_offer_response(updater, id, &response, &error), error);
    while (at < image_size) {
        CHECK_OK(twinflash_updater_offer(updater, id, at, image + at, image_size - at, 1000, &taken, &error),
            error);
        at += taken;
    }
    CHECK_OK(twinflash_updater_offer_end(updater, id, &error), error);
    serve(updater, TWINFLASH_EVENT_KIND_ENDED, 0, NULL);
    has_image(f);
    CHECK_OK(twinflash_updater_close(updater, &error), error);
    CHECK(twinflash_updater_next_wanted(updater, -1, &wanted, &error) == TWINFLASH_STATUS_CLOSED);
    gone(updater, f);
}

enum { THREADS = 8, ROUNDS = 20 };

static void *hammer(void *data)
{
    twinflash_updater *updater = (twinflash_updater *)data;
    for (int i = 0; i < ROUNDS; i++) {
        twinflash_error why;
        twinflash_answer answer;
        twinflash_state *state;
        twinflash_event *event;
        const char *text = "{\"fwPackageUri\":\"ftp://nowhere\",\"fwPackageCheckValue\":\"31c3\"}";
        twinflash_status got = twinflash_updater_handle_method(updater, "firmwareUpdate", text,
            strlen(text), &answer, &why);
        CHECK_OK(got, why);
        CHECK(answer.status >= 400);
        free(answer.payload);
        CHECK_OK(twinflash_updater_state(updater, &state, &why), why);
        twinflash_state_free(state);
        CHECK_OK(twinflash_updater_handle_twin(updater, i % 2 == 0,
            "{\"desired\":{},\"reported\":{}}", 28, &why), why);
        CHECK_OK(twinflash_updater_connected(updater, i % 7 != 0, &why), why);
        CHECK_OK(i % 3 ? twinflash_updater_resume(updater, &why)
                       : twinflash_updater_pause(updater, &why), why);
        if (twinflash_updater_next_event(updater, 0, &event, &why) == TWINFLASH_STATUS_OK)
            twinflash_event_free(event);
    }
    return NULL;
}

static void *waits_for_events(void *data)
{
    twinflash_event *event;
    twinflash_status got;
    while ((got = twinflash_updater_next_event((twinflash_updater *)data, -1, &event, NULL))
        == TWINFLASH_STATUS_OK)
        twinflash_event_free(event);
    CHECK(got == TWINFLASH_STATUS_CLOSED);
    return NULL;
}

static void *acknowledges(void *data)
{
    twinflash_outbound *outbound;
    twinflash_status got;
    twinflash_updater *updater = (twinflash_updater *)data;
    while ((got = twinflash_updater_next_outbound(updater, -1, &outbound, NULL))
        == TWINFLASH_STATUS_OK) {
        if (outbound->kind == TWINFLASH_OUTBOUND_KIND_REPORT)
            CHECK(twinflash_updater_report_done(updater, outbound->id, 204, NULL) == 0);
        twinflash_outbound_free(outbound);
    }
    CHECK(got == TWINFLASH_STATUS_CLOSED);
    return NULL;
}

static void hammered_by_threads(void)
{
    flash *f = new_flash();
    twinflash_updater *updater = started(builder("threads", f, TWINFLASH_RESTART_NONE));
    pthread_t thread[THREADS], waiting, acknowledging;
    twinflash_outcome outcome;
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    ask(updater, "/image.bin");
    CHECK(pthread_create(&waiting, NULL, waits_for_events, updater) == 0);
    CHECK(pthread_create(&acknowledging, NULL, acknowledges, updater) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, hammer, updater) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    CHECK_OK(twinflash_updater_resume(updater, &error), error);
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    CHECK_OK(twinflash_updater_wait(updater, 60000, &outcome, &error), error);
    CHECK(outcome == TWINFLASH_OUTCOME_COMPLETED);
    has_image(f);
    /* Who waits is woken by the close. */
    CHECK_OK(twinflash_updater_close(updater, &error), error);
    CHECK(pthread_join(waiting, NULL) == 0 && pthread_join(acknowledging, NULL) == 0);
    gone(updater, f);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    polled_from_one_thread();
    callbacks_call_back_in();
    nothing_is_sent_before_the_connection();
    two_in_one_process();
    paused_resumed_cancelled();
    closed_in_mid_download();
    tried_again();
    offered();
    hammered_by_threads();
    printf("update: all went as it should\n");
    return 0;
}
