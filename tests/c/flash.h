/* A flash of two banks, in memory: what survives a restart of the updater, as a real one would. */
#ifndef FLASH_H
#define FLASH_H

#include "check.h"
#include "twinflash.h"

#include <stdint.h>

enum { BANK_SIZE = 1 << 20 };

typedef struct flash {
    uint8_t bank[2][BANK_SIZE];
    uint64_t size[2];
    int running, next; /* banks */
    uint64_t begun_at; /* where the last `begin` said that writing starts */
    int destroyed;
    int32_t write_fails; /* the status `write` gives */
    void (*in_each)(void *); /* called in each function */
    void *in_each_data;
} flash;

static flash *flash_of(void *data)
{
    flash *f = (flash *)data;
    if (f->in_each)
        f->in_each(f->in_each_data);
    return f;
}

static int32_t flash_inspect(void *data, int32_t *state, twinflash_error *error)
{
    flash *f = (flash *)data; /* there is no updater to call back yet */
    (void)error;
    if (f->running != f->next)
        f->running = f->next; /* a start is what switches */
    *state = f->running == 1 ? TWINFLASH_IMAGE_STATE_NEW : TWINFLASH_IMAGE_STATE_OLD;
    return 0;
}

static int32_t flash_begin(void *data, const twinflash_image *image, uint64_t resume_at,
    uint64_t *start_at, twinflash_error *error)
{
    flash *f = flash_of(data);
    if (image->has_size && image->size > BANK_SIZE) {
        snprintf(error->message, sizeof error->message, "the bank has %d bytes", (int)BANK_SIZE);
        return TWINFLASH_STATUS_NO_SPACE;
    }
    *start_at = f->begun_at = f->size[1] >= resume_at ? resume_at : 0;
    f->size[1] = *start_at;
    return 0;
}

static int32_t flash_write(void *data, uint64_t offset, const uint8_t *bytes, size_t length,
    twinflash_error *error)
{
    flash *f = flash_of(data);
    if (f->write_fails) {
        snprintf(error->message, sizeof error->message, "bank 1 is worn out at %d", (int)offset);
        return f->write_fails;
    }
    CHECK(offset == f->size[1] && length <= BANK_SIZE - offset);
    memcpy(f->bank[1] + offset, bytes, length);
    f->size[1] += length;
    return 0;
}

static int32_t flash_sync(void *data, uint64_t *durable, twinflash_error *error)
{
    (void)error;
    *durable = flash_of(data)->size[1];
    return 0;
}

static int32_t flash_step(void *data, twinflash_error *error)
{
    (void)error;
    flash_of(data);
    return 0;
}

static int32_t flash_activate(void *data, twinflash_error *error)
{
    (void)error;
    flash_of(data)->next = 1;
    return 0;
}

static int32_t flash_rollback(void *data, twinflash_error *error)
{
    (void)error;
    flash_of(data)->next = 0;
    return 0;
}

static int32_t flash_abort(void *data, twinflash_error *error)
{
    (void)error;
    flash_of(data)->size[1] = 0;
    return 0;
}

static void flash_destroy(void *data)
{
    ((flash *)data)->destroyed++;
}

static void flash_install(twinflash_builder *builder, flash *f, int32_t restart)
{
    twinflash_error error;
    twinflash_installer table;
    memset(&table, 0, sizeof table);
    table.size = sizeof table;
    table.user_data = f;
    table.destroy = flash_destroy;
    table.restart = restart;
    table.inspect = flash_inspect;
    table.begin = flash_begin;
    table.write = flash_write;
    table.sync = flash_sync;
    table.finish = flash_step;
    table.activate = flash_activate;
    table.confirm = flash_step;
    table.rollback = flash_rollback;
    table.abort = flash_abort;
    CHECK_OK(twinflash_builder_set_installer(builder, &table, &error), error);
}

#endif
