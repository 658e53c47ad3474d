/* A device whose images come by the application's own HTTP client: libcurl.
 *
 * device_curl STATE_DIR TARGET, with the connection string in TWINFLASH_DEVICE; for a local hub, the file of
 * its certificate authority in TWINFLASH_CA. Ends on SIGTERM or SIGINT. */
#include <twinflash.h>

#include <curl/curl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static int failed(const char *what, const twinflash_error *error)
{
    fprintf(stderr, "%s: %s (%s)\n", what, error->message, twinflash_status_name(error->status));
    return 1;
}

/* A transfer. */
typedef struct transfer {
    twinflash_updater *updater;
    CURL *curl;
    uint64_t id, at;
    twinflash_response response;
    char validator[512];
    bool answered;
} transfer;

static void on_event(const twinflash_event *event, void *user_data)
{
    (void)user_data;
    printf("%s\n", event->text);
    fflush(stdout);
}

static size_t on_header(char *line, size_t size, size_t count, void *data)
{
    transfer *t = (transfer *)data;
    size_t length = size * count;
    char text[600];
    if (length >= sizeof text)
        return length;
    memcpy(text, line, length);
    text[length] = 0;
    text[strcspn(text, "\r\n")] = 0;
    if (strncmp(text, "HTTP/", 5) == 0) { /* perhaps after a redirect: all anew */
        memset(&t->response, 0, sizeof t->response);
        t->response.size = sizeof t->response;
    } else if (strncasecmp(text, "ETag:", 5) == 0) {
        snprintf(t->validator, sizeof t->validator, "%s", text + 5 + strspn(text + 5, " "));
        t->response.validator = t->validator;
    } else if (strncasecmp(text, "Content-Length:", 15) == 0 && t->response.total == 0) {
        t->response.total = strtoull(text + 15, NULL, 10);
    } else if (strncasecmp(text, "Content-Range:", 14) == 0) {
        unsigned long long first = 0, total = 0;
        if (sscanf(text + 14, " bytes %llu-%*u/%llu", &first, &total) == 2) {
            t->response.offset = first;
            t->response.total = total;
        }
    } else if (strncasecmp(text, "Retry-After:", 12) == 0) {
        t->response.retry_after = (uint32_t)strtoul(text + 12, NULL, 10);
    }
    return length;
}

/* Hands over what the server answered. */
static bool answer(transfer *t)
{
    long status = 0;
    if (t->answered)
        return true;
    t->answered = true;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    t->response.status = (int32_t)status;
    t->at = status == 206 ? t->response.offset : 0;
    return twinflash_updater_offer_response(t->updater, t->id, &t->response, NULL) == TWINFLASH_STATUS_OK;
}

static size_t on_bytes(char *bytes, size_t size, size_t count, void *data)
{
    transfer *t = (transfer *)data;
    size_t length = size * count, done = 0, taken;
    if (!answer(t))
        return 0;
    while (done < length && !stopped) {
        if (twinflash_updater_offer(t->updater, t->id, t->at, bytes + done, length - done, 200, &taken, NULL)
            != TWINFLASH_STATUS_OK)
            return 0; /* not wanted any more: curl ends the transfer */
        done += taken;
        t->at += taken;
    }
    return done;
}

/* Again and again while curl works or waits; what is not 0 ends the transfer. So one from a silent server ends, too. */
static int on_progress(void *data, curl_off_t total, curl_off_t now, curl_off_t to_send, curl_off_t sent)
{
    const transfer *t = (transfer *)data;
    size_t taken;
    (void)total, (void)now, (void)to_send, (void)sent;
    return stopped
        || twinflash_updater_offer(t->updater, t->id, t->at, NULL, 0, 0, &taken, NULL)
            == TWINFLASH_STATUS_NOT_WANTED;
}

static void fetch(twinflash_updater *updater, const twinflash_wanted *wanted)
{
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = NULL;
    transfer t;
    CURLcode result;
    char line[640];
    memset(&t, 0, sizeof t);
    t.updater = updater;
    t.curl = curl;
    t.id = wanted->id;
    if (wanted->offset) {
        snprintf(line, sizeof line, "Range: bytes=%llu-", (unsigned long long)wanted->offset);
        headers = curl_slist_append(headers, line);
        if (wanted->validator) {
            snprintf(line, sizeof line, "If-Range: %.500s", wanted->validator);
            headers = curl_slist_append(headers, line);
        }
    }
    curl_easy_setopt(curl, CURLOPT_URL, wanted->uri);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, wanted->https_only ? "https" : "http,https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, wanted->https_only ? "https" : "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)wanted->max_redirects);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &t);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &t);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &t);
    result = curl_easy_perform(curl);
    if (result == CURLE_OK && answer(&t)) /* one with no body was not handed over yet */
        twinflash_updater_offer_end(updater, t.id, NULL);
    else if (result != CURLE_WRITE_ERROR && result != CURLE_ABORTED_BY_CALLBACK)
        twinflash_updater_offer_failed(updater, t.id,
            result == CURLE_PEER_FAILED_VERIFICATION ? TWINFLASH_STATUS_TLS : TWINFLASH_STATUS_NETWORK,
            curl_easy_strerror(result), true, NULL);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
}

int main(int argc, char **argv)
{
    const char *connection = getenv("TWINFLASH_DEVICE"), *ca = getenv("TWINFLASH_CA");
    twinflash_error error;
    twinflash_builder *builder;
    twinflash_updater *updater = NULL;
    twinflash_device *device = NULL;
    twinflash_wanted *wanted;
    twinflash_status status;
    if (argc != 3 || !connection) {
        fprintf(stderr, "usage: TWINFLASH_DEVICE=CONNECTION_STRING device_curl STATE_DIR TARGET\n");
        return 2;
    }
    signal(SIGTERM, stop);
    signal(SIGINT, stop);

    curl_global_init(CURL_GLOBAL_ALL);
    builder = twinflash_builder_new();
    status = twinflash_builder_set_string(builder, "state_dir", argv[1], &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_string(builder, "install.file", argv[2], &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_string(builder, "current_version", "1.0.0", &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_bool(builder, "policy.allow_http", true, &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_string(builder, "source", "offered", &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_on_event(builder, on_event, NULL, NULL, &error);
    if (status == TWINFLASH_STATUS_OK && ca)
        status = twinflash_builder_set_string(builder, "ca", ca, &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_start(builder, &updater, &error);
    twinflash_builder_free(builder);
    if (status != TWINFLASH_STATUS_OK)
        return failed("start", &error);
    if (twinflash_device_connect(updater, connection, NULL, NULL, NULL, &device, &error)
        != TWINFLASH_STATUS_OK) {
        twinflash_updater_free(updater);
        return failed("connect", &error);
    }

    while (!stopped) {
        if (twinflash_updater_next_wanted(updater, 200, &wanted, NULL) != TWINFLASH_STATUS_OK)
            continue;
        fetch(updater, wanted);
        twinflash_wanted_free(wanted);
    }
    twinflash_device_free(device);
    twinflash_updater_free(updater);
    curl_global_cleanup();
    return 0;
}
