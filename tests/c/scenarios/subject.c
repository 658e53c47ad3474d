/* The C library as a subject of tests/scenarios: requests come in as lines of JSON, answers and what happens
 * go out as such. See "A subject" in tests/scenarios/README.md. */
#include "twinflash.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An updater, freed once nobody uses it. */
typedef struct session {
    twinflash_updater *updater;
    double id;
    int users;
} session;

/* A request on its way. */
typedef struct task {
    session *of;
    cJSON *request;
} task;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static int waiting;
static session *current;

static const char *const phases[] = { NULL, "waiting", "downloading", "verifying", "applying",
    "rebooting", "confirming", "rolling-back" };
static const char *const outcomes[] = { NULL, "completed", "up-to-date", "failed", "rolled-back",
    "cancelled", "superseded", "other" };

/* Says a line, and frees it. */
static void say(cJSON *line)
{
    char *text = cJSON_PrintUnformatted(line);
    pthread_mutex_lock(&lock);
    printf("%s\n", text);
    fflush(stdout);
    pthread_mutex_unlock(&lock);
    cJSON_free(text);
    cJSON_Delete(line);
}

static void say_of(double id, const char *name, cJSON *value)
{
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "of", id);
    cJSON_AddItemToObject(line, name, value);
    say(line);
}

static void answer(const cJSON *request, cJSON *ok, const char *code, const char *message)
{
    cJSON *line = cJSON_CreateObject(), *error;
    cJSON_AddNumberToObject(line, "id", cJSON_GetObjectItem(request, "id")->valuedouble);
    if (code) {
        cJSON_Delete(ok);
        error = cJSON_AddObjectToObject(line, "error");
        cJSON_AddStringToObject(error, "code", code);
        cJSON_AddStringToObject(error, "message", message);
    } else {
        cJSON_AddItemToObject(line, "ok", ok ? ok : cJSON_CreateNull());
    }
    say(line);
}

static cJSON *text_or_null(const char *text)
{
    return text ? cJSON_CreateString(text) : cJSON_CreateNull();
}

static void on_event(const twinflash_event *event, void *of)
{
    say_of(((session *)of)->id, event->kind == TWINFLASH_EVENT_KIND_WARNING ? "warning" : "event",
        cJSON_CreateString(event->text));
}

static void on_log(twinflash_level level, const char *line, void *of)
{
    (void)level;
    say_of(((session *)of)->id, "event", cJSON_CreateString(line));
}

static int32_t on_restart(twinflash_restart restart, twinflash_error *error, void *of)
{
    (void)error;
    say_of(((session *)of)->id, "restart", cJSON_CreateNumber(restart));
    return 0;
}

static void on_outbound(const twinflash_outbound *outbound, void *of)
{
    cJSON *report = cJSON_CreateObject();
    if (outbound->kind == TWINFLASH_OUTBOUND_KIND_READ_TWIN) {
        cJSON_Delete(report);
        say_of(((session *)of)->id, "readTwin", cJSON_CreateTrue());
        return;
    }
    cJSON_AddNumberToObject(report, "id", (double)outbound->id);
    cJSON_AddItemToObject(report, "patch", cJSON_ParseWithLength(outbound->patch, outbound->patch_length));
    say_of(((session *)of)->id, "report", report);
}

/* Nobody uses it any more. */
static void leave(session *s)
{
    int left;
    pthread_mutex_lock(&lock);
    left = --s->users;
    pthread_mutex_unlock(&lock);
    if (left == 0) {
        twinflash_updater_free(s->updater);
        free(s);
    }
}

/* The configuration as it stands in the line: cJSON has no integers beyond 2^53. */
static char *config_of(const char *line)
{
    const char *from = strstr(line, "\"config\":"), *at;
    int depth = 0;
    bool quoted = false;
    char *made;
    if (!from)
        return NULL;
    from += strlen("\"config\":");
    for (at = from; *at; at++) {
        if (quoted && *at == '\\' && at[1])
            at++;
        else if (*at == '"')
            quoted = !quoted;
        else if (!quoted && *at == '{')
            depth++;
        else if (!quoted && *at == '}' && --depth == 0)
            break;
    }
    made = (char *)calloc(1, (size_t)(at - from) + 2);
    memcpy(made, from, (size_t)(at - from) + 1);
    return made;
}

static twinflash_status start(const cJSON *request, const char *line, twinflash_error *error)
{
    char *config = config_of(line);
    twinflash_builder *builder = twinflash_builder_new();
    session *made = (session *)calloc(1, sizeof *made);
    twinflash_status status = twinflash_builder_set_json(builder, config, error);
    made->id = cJSON_GetObjectItem(request, "id")->valuedouble;
    made->users = 1;
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_on_event(builder, on_event, made, NULL, error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_on_log(builder, TWINFLASH_LEVEL_DEBUG, on_log, made, NULL, error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_on_restart(builder, on_restart, made, NULL, error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_on_outbound(builder, on_outbound, made, NULL, error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_start(builder, &made->updater, error);
    twinflash_builder_free(builder);
    free(config);
    if (status != TWINFLASH_STATUS_OK) {
        free(made);
        return status;
    }
    if (current)
        leave(current);
    current = made;
    return status;
}

static cJSON *outcome_of(const twinflash_state *state)
{
    cJSON *outcome;
    if (state->outcome == TWINFLASH_OUTCOME_NONE)
        return cJSON_CreateNull();
    outcome = cJSON_CreateObject();
    cJSON_AddStringToObject(outcome, "outcome", outcomes[state->outcome]);
    cJSON_AddItemToObject(outcome, "phase", text_or_null(phases[state->ended_in]));
    if (state->status != TWINFLASH_STATUS_OK)
        cJSON_AddStringToObject(outcome, "code", twinflash_status_name(state->status));
    cJSON_AddItemToObject(outcome, "message", text_or_null(state->message));
    return outcome;
}

static cJSON *status_of(const twinflash_state *state)
{
    cJSON *made = cJSON_CreateObject();
    cJSON_AddItemToObject(made, "phase", text_or_null(phases[state->phase]));
    cJSON_AddItemToObject(made, "version", text_or_null(state->version));
    cJSON_AddItemToObject(made, "runningVersion", text_or_null(state->running_version));
    cJSON_AddItemToObject(made, "outcome", outcome_of(state));
    cJSON_AddNumberToObject(made, "bytes", (double)state->bytes);
    cJSON_AddItemToObject(made, "size",
        state->size ? cJSON_CreateNumber((double)state->size) : cJSON_CreateNull());
    cJSON_AddBoolToObject(made, "paused", state->paused);
    return made;
}

static twinflash_status guard(const char *state_dir, cJSON **ok, twinflash_error *error)
{
    char text[64] = "nothing";
    twinflash_guarded guarded = TWINFLASH_GUARDED_NOTHING;
    uint32_t starts = 0, allowed = 0;
    twinflash_status status = twinflash_guard(state_dir, &guarded, &starts, &allowed, error);
    if (guarded == TWINFLASH_GUARDED_COUNTED)
        snprintf(text, sizeof text, "%u of %u", (unsigned)starts, (unsigned)allowed);
    *ok = cJSON_CreateString(guarded == TWINFLASH_GUARDED_ROLLED_BACK ? "rolled-back" : text);
    return status;
}

static void perform(session *s, const cJSON *request, const char *line)
{
    const char *what = cJSON_GetObjectItem(request, "do")->valuestring;
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(request, "name"));
    const char *payload = cJSON_GetStringValue(cJSON_GetObjectItem(request, "payload"));
    const char *json = cJSON_GetStringValue(cJSON_GetObjectItem(request, "json"));
    twinflash_updater *updater = s ? s->updater : NULL;
    twinflash_error error;
    twinflash_status status = TWINFLASH_STATUS_OK;
    twinflash_state *state = NULL;
    cJSON *ok = NULL;
    error.message[0] = 0;
    if (strcmp(what, "start") == 0) {
        status = start(request, line, &error);
    } else if (strcmp(what, "guard") == 0) {
        status = guard(cJSON_GetStringValue(cJSON_GetObjectItem(request, "state_dir")), &ok, &error);
    } else if (!updater) {
        answer(request, NULL, "fault", "the updater is not started");
        return;
    } else if (strcmp(what, "method") == 0) {
        twinflash_answer got;
        status = twinflash_updater_handle_method(updater, name, payload, strlen(payload), &got, &error);
        if (status == TWINFLASH_STATUS_OK) {
            ok = cJSON_CreateObject();
            cJSON_AddNumberToObject(ok, "status", got.status);
            cJSON_AddItemToObject(ok, "payload", cJSON_ParseWithLength(got.payload, got.payload_length));
            free(got.payload);
        } else if (status == TWINFLASH_STATUS_NOT_MINE) {
            status = TWINFLASH_STATUS_OK;
        }
    } else if (strcmp(what, "wait") == 0) {
        double seconds = cJSON_GetObjectItem(request, "seconds")->valuedouble;
        status = twinflash_updater_wait(updater, (int64_t)(seconds * 1000), NULL, &error);
        if (status == TWINFLASH_STATUS_OK)
            status = twinflash_updater_state(updater, &state, &error);
        else if (status == TWINFLASH_STATUS_TIMEOUT)
            status = TWINFLASH_STATUS_OK;
        ok = state ? outcome_of(state) : NULL;
    } else if (strcmp(what, "status") == 0) {
        status = twinflash_updater_state(updater, &state, &error);
        ok = state ? status_of(state) : NULL;
    } else if (strcmp(what, "cancel") == 0) {
        bool cancelled = false;
        status = twinflash_updater_cancel(updater, &cancelled, &error);
        ok = cJSON_CreateBool(cancelled);
    } else if (strcmp(what, "twin") == 0) {
        status = twinflash_updater_handle_twin(updater,
            cJSON_IsTrue(cJSON_GetObjectItem(request, "complete")), json, strlen(json), &error);
    } else if (strcmp(what, "connected") == 0) {
        status = twinflash_updater_connected(updater,
            cJSON_IsTrue(cJSON_GetObjectItem(request, "connected")), &error);
    } else if (strcmp(what, "report_done") == 0) {
        status = twinflash_updater_report_done(updater,
            (uint64_t)cJSON_GetObjectItem(request, "report")->valuedouble,
            cJSON_GetObjectItem(request, "status")->valueint, &error);
    } else if (strcmp(what, "pause") == 0) {
        status = twinflash_updater_pause(updater, &error);
    } else if (strcmp(what, "resume") == 0) {
        status = twinflash_updater_resume(updater, &error);
    } else if (strcmp(what, "confirm") == 0) {
        status = twinflash_updater_confirm(updater, &error);
    } else if (strcmp(what, "close") == 0) {
        status = twinflash_updater_close(updater, &error);
    } else {
        answer(request, NULL, "fault", what);
        return;
    }
    twinflash_state_free(state);
    answer(request, ok,
        status == TWINFLASH_STATUS_OK ? NULL
            : status < TWINFLASH_STATUS_INVALID_REQUEST ? "fault" : twinflash_status_name(status),
        error.message);
}

static void *perform_aside(void *data)
{
    task *t = (task *)data;
    perform(t->of, t->request, NULL);
    cJSON_Delete(t->request);
    if (t->of)
        leave(t->of);
    free(t);
    pthread_mutex_lock(&lock);
    waiting--;
    pthread_cond_broadcast(&ended);
    pthread_mutex_unlock(&lock);
    return NULL;
}

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        cJSON *request = cJSON_Parse(line);
        const char *what = cJSON_GetStringValue(cJSON_GetObjectItem(request, "do"));
        if (what && (strcmp(what, "method") == 0 || strcmp(what, "wait") == 0)) {
            /* These wait for what other requests bring. */
            pthread_t thread;
            task *t = (task *)calloc(1, sizeof *t);
            t->of = current;
            t->request = request;
            pthread_mutex_lock(&lock);
            waiting++;
            if (current)
                current->users++;
            pthread_mutex_unlock(&lock);
            if (pthread_create(&thread, NULL, perform_aside, t) != 0)
                return 1;
            pthread_detach(thread);
            continue;
        }
        if (!what)
            return 1;
        perform(current, request, line);
        cJSON_Delete(request);
    }
    free(line);
    if (current) {
        twinflash_updater_close(current->updater, NULL);
        leave(current);
    }
    pthread_mutex_lock(&lock);
    while (waiting > 0)
        pthread_cond_wait(&ended, &lock);
    pthread_mutex_unlock(&lock);
    return 0;
}
