/* What holds an update up, and an image from a file: consent, deferral, dry runs, twinflash_updater_install_file.
 *
 * Argument and environment as in update.c. */
#include "whole.h"

#include <math.h>

static twinflash_state *state_of(twinflash_updater *updater)
{
    twinflash_state *state;
    CHECK_OK(twinflash_updater_state(updater, &state, &error), error);
    return state;
}

static void waits(twinflash_updater *updater, int32_t on, int32_t before)
{
    twinflash_state *state = state_of(updater);
    CHECK((int32_t)state->waiting_on == on && (int32_t)state->waiting_before == before);
    twinflash_state_free(state);
}

static twinflash_updater *asking(const char *name, flash *f, const char *policy)
{
    twinflash_builder *made = builder(name, f, TWINFLASH_RESTART_NONE);
    twinflash_updater *updater;
    CHECK_OK(twinflash_builder_set_json(made, policy, &error), error);
    updater = started(made);
    CHECK_OK(twinflash_updater_connected(updater, true, &error), error);
    return updater;
}

static void agreed_to_and_put_off(void)
{
    flash *f = new_flash();
    twinflash_updater *updater = asking("consent", f, "{\"policy\":{\"consent\":[\"apply\"]}}");
    twinflash_event *event;
    twinflash_state *state;
    bool was = true;
    /* Nobody is asked yet. */
    CHECK_OK(twinflash_updater_approve(updater, &was, &error), error);
    CHECK(!was);
    was = true;
    CHECK_OK(twinflash_updater_defer(updater, 3600, &was, &error), error);
    CHECK(!was);
    waits(updater, TWINFLASH_WAIT_NONE, TWINFLASH_STAGE_NONE);

    ask(updater, "/image.bin");
    serve(updater, TWINFLASH_EVENT_KIND_WAITING, 0, &event);
    CHECK(event->waiting_on == TWINFLASH_WAIT_CONSENT && event->waiting_before == TWINFLASH_STAGE_APPLY);
    CHECK(strcmp(event->message, "consent") == 0 && event->after_seconds < 0);
    twinflash_event_free(event);
    state = state_of(updater);
    CHECK(state->waiting_on == TWINFLASH_WAIT_CONSENT && state->waiting_before == TWINFLASH_STAGE_APPLY);
    CHECK(state->waiting_after_seconds < 0 && state->waiting_until == 0);
    twinflash_state_free(state);
    CHECK(f->next == 0);

    CHECK_ERROR(twinflash_updater_install_file(updater, getenv("TEST_IMAGE"), NULL, NULL, NULL, &error),
        TWINFLASH_STATUS_BUSY, error, "");
    CHECK_ERROR(twinflash_updater_defer(updater, -1, NULL, &error), TWINFLASH_STATUS_INVALID_ARGUMENT, error,
        "seconds is -1");
    CHECK_ERROR(twinflash_updater_defer(updater, (double)NAN, NULL, &error), TWINFLASH_STATUS_INVALID_ARGUMENT,
        error, "seconds is NaN");
    CHECK_OK(twinflash_updater_defer(updater, 3600, &was, &error), error);
    CHECK(was);
    state = state_of(updater);
    CHECK(state->waiting_on == TWINFLASH_WAIT_DEFERRAL && state->waiting_before == TWINFLASH_STAGE_APPLY);
    CHECK(state->waiting_after_seconds > 3000 && state->waiting_after_seconds <= 3600);
    CHECK(state->waiting_until > 1000);
    twinflash_state_free(state);
    CHECK_OK(twinflash_updater_defer(updater, 0, &was, &error), error);
    CHECK(was);
    waits(updater, TWINFLASH_WAIT_CONSENT, TWINFLASH_STAGE_APPLY);

    was = false;
    CHECK_OK(twinflash_updater_approve(updater, &was, &error), error);
    CHECK(was);
    serve(updater, TWINFLASH_EVENT_KIND_ENDED, 0, &event);
    CHECK(event->outcome == TWINFLASH_OUTCOME_COMPLETED);
    twinflash_event_free(event);
    waits(updater, TWINFLASH_WAIT_NONE, TWINFLASH_STAGE_NONE);
    has_image(f);
    gone(updater, f);
}

static void not_agreed_to(void)
{
    flash *f = new_flash();
    twinflash_updater *updater = asking("refusal", f, "{\"policy\":{\"consent\":[\"download\"]}}");
    twinflash_state *state;
    bool cancelled = false;
    ask(updater, "/image.bin");
    serve(updater, TWINFLASH_EVENT_KIND_WAITING, 0, NULL);
    waits(updater, TWINFLASH_WAIT_CONSENT, TWINFLASH_STAGE_DOWNLOAD);
    CHECK_OK(twinflash_updater_cancel(updater, &cancelled, &error), error);
    CHECK(cancelled);
    state = state_of(updater);
    CHECK(state->outcome == TWINFLASH_OUTCOME_CANCELLED && state->ended_in == TWINFLASH_PHASE_WAITING);
    CHECK(state->bytes == 0 && state->waiting_on == TWINFLASH_WAIT_NONE);
    twinflash_state_free(state);
    CHECK_OK(twinflash_updater_close(updater, &error), error);
    CHECK(f->size[1] == 0);
    gone(updater, f);
}

static void from_a_file(void)
{
    flash *f = new_flash();
    /* Nobody is asked who brings it. */
    twinflash_updater *updater = asking("file", f, "{\"policy\":{\"consent\":[\"download\",\"apply\"]}}");
    twinflash_event *ended;
    twinflash_state *state;
    const char *file = getenv("TEST_IMAGE");
    CHECK_ERROR(twinflash_updater_install_file(updater, NULL, NULL, NULL, NULL, &error),
        TWINFLASH_STATUS_NULL_ARGUMENT, error, "path");
    CHECK_ERROR(twinflash_updater_install_file(updater, file, "\xff", NULL, NULL, &error),
        TWINFLASH_STATUS_INVALID_UTF8, error, "version");
    CHECK_ERROR(twinflash_updater_install_file(updater, file, NULL, "no check value", NULL, &error),
        TWINFLASH_STATUS_INVALID_CHECK, error, "no check value");
    CHECK(twinflash_updater_install_file(updater, "/nowhere/image.bin", NULL, NULL, NULL, &error) != 0);
    CHECK(strstr(error.message, "/nowhere/image.bin") != NULL);

    CHECK_OK(twinflash_updater_install_file(updater, file, "2.0.0", sha256, NULL, &error), error);
    serve(updater, TWINFLASH_EVENT_KIND_ENDED, 0, &ended);
    CHECK(ended->outcome == TWINFLASH_OUTCOME_COMPLETED);
    twinflash_event_free(ended);
    has_image(f);
    state = state_of(updater);
    CHECK(strcmp(state->version, "2.0.0") == 0);
    twinflash_state_free(state);
    gone(updater, f);
}

static void tried_out_only(void)
{
    flash *f = new_flash();
    twinflash_updater *updater = asking("dry", f, "{\"policy\":{\"dry_run\":true}}");
    twinflash_event *ended;
    ask(updater, "/image.bin");
    serve(updater, TWINFLASH_EVENT_KIND_VERIFIED, 0, &ended);
    CHECK(ended->bytes == image_size && strcmp(ended->sha256, sha256) == 0);
    twinflash_event_free(ended);
    serve(updater, TWINFLASH_EVENT_KIND_ENDED, 0, &ended);
    CHECK(ended->outcome == TWINFLASH_OUTCOME_FAILED && ended->status == TWINFLASH_STATUS_DRY_RUN);
    twinflash_event_free(ended);
    CHECK_OK(twinflash_updater_close(updater, &error), error);
    CHECK(f->size[1] == 0 && f->next == 0 && f->running == 0);
    gone(updater, f);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    agreed_to_and_put_off();
    not_agreed_to();
    from_a_file();
    tried_out_only();
    printf("policy: all went as it should\n");
    return 0;
}
