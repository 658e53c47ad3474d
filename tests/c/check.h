/* The smallest of test harnesses: says what failed and where, and ends with status 1. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                   \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);        \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)

/* A status is the expected one, and the error says so, too, with words that hold `words`. */
#define CHECK_ERROR(call, expected, error, words)                                          \
    do {                                                                                   \
        (error).status = TWINFLASH_STATUS_OK;                                              \
        (error).message[0] = 0;                                                            \
        int got_ = (int)(call);                                                            \
        if (got_ != (int)(expected) || (int)(error).status != got_                         \
            || strstr((error).message, (words)) == NULL) {                                 \
            fprintf(stderr, "%s:%d: %s\n  gave %d (%s), \"%s\"\n  not %d with \"%s\"\n",   \
                __FILE__, __LINE__, #call, got_, twinflash_status_name(got_),              \
                (error).message, (int)(expected), (words));                                \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)

#define CHECK_OK(call, error)                                                              \
    do {                                                                                   \
        int got_ = (int)(call);                                                            \
        if (got_ != 0) {                                                                   \
            fprintf(stderr, "%s:%d: %s\n  gave %d (%s), \"%s\"\n", __FILE__, __LINE__,     \
                #call, got_, twinflash_status_name(got_), (error).message);                \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)

#endif
