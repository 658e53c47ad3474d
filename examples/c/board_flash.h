/* A board's flash, simulated by a file: what a boot loader would know, the two copies of twinflash's
 * record, and two banks of firmware.
 *
 * It can lose its power: before, in the middle of, and after each change, counted by flash_cut. */
#ifndef BOARD_FLASH_H
#define BOARD_FLASH_H

#include <twinflash_sansio.h>

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef FLASH_BANK_SECTORS
#define FLASH_BANK_SECTORS 16
#endif

enum {
    FLASH_SELECTED = 0, /* one byte: the bank that starts */
    FLASH_GOOD = 1,     /* one byte: the bank that has proved itself */
    FLASH_WRITTEN = 2,  /* one byte: the bank the last update was written to */
    FLASH_SECTOR = 32768,
    FLASH_RECORD = FLASH_SECTOR, /* two sectors */
    FLASH_BANK = 4 * FLASH_SECTOR,
    FLASH_BANK_SIZE = FLASH_BANK_SECTORS * FLASH_SECTOR,
    FLASH_SIZE = FLASH_BANK + 2 * FLASH_BANK_SIZE
};

/* The power fails at this change; never where it is negative. */
static long flash_cut = -1;

typedef struct flash {
    int file;
    uint64_t length; /* of the image that is written */
    uint8_t sector[FLASH_SECTOR];
} flash;

static void flash_power(void)
{
    if (flash_cut >= 0 && flash_cut-- == 0)
        _exit(9);
}

static bool flash_put(flash *f, off_t at, const void *bytes, size_t length)
{
    size_t half = length / 2;
    bool written;
    flash_power();
    written = pwrite(f->file, bytes, half, at) == (ssize_t)half;
    flash_power();
    written = written
        && pwrite(f->file, (const uint8_t *)bytes + half, length - half, at + (off_t)half)
            == (ssize_t)(length - half);
    flash_power();
    return written;
}

static bool flash_erase(flash *f, off_t at, size_t length)
{
    static uint8_t erased[FLASH_SECTOR];
    memset(erased, 0xff, sizeof erased);
    for (size_t done = 0; done < length; done += FLASH_SECTOR)
        if (!flash_put(f, at + (off_t)done, erased, FLASH_SECTOR))
            return false;
    return true;
}

static int flash_word(const flash *f, off_t at)
{
    uint8_t word = 0;
    return pread(f->file, &word, 1, at) == 1 && word == 1;
}

/* The other bank than the one that has proved itself. */
static off_t flash_spare(const flash *f)
{
    return FLASH_BANK + (flash_word(f, FLASH_GOOD) ? 0 : FLASH_BANK_SIZE);
}

static int32_t flash_result(bool done)
{
    return done ? 0 : TWINFLASH_SANSIO_STATUS_STORAGE;
}

static int32_t flash_load(void *data, int32_t copy, const uint8_t **bytes, size_t *length)
{
    flash *f = (flash *)data;
    *bytes = f->sector;
    *length = sizeof f->sector;
    return flash_result(pread(f->file, f->sector, sizeof f->sector,
                            FLASH_RECORD + copy * FLASH_SECTOR) == FLASH_SECTOR);
}

static int32_t flash_save(void *data, int32_t copy, const uint8_t *bytes, size_t length)
{
    flash *f = (flash *)data;
    off_t at = FLASH_RECORD + copy * FLASH_SECTOR;
    if (length > FLASH_SECTOR)
        return TWINFLASH_SANSIO_STATUS_STORAGE;
    return flash_result(flash_erase(f, at, FLASH_SECTOR) && flash_put(f, at, bytes, length)
        && fdatasync(f->file) == 0);
}

static int32_t flash_inspect(void *data, int32_t *image)
{
    const flash *f = (flash *)data;
    /* Also after it was confirmed: power may fail before that is saved. */
    *image = flash_word(f, FLASH_SELECTED) == flash_word(f, FLASH_WRITTEN)
        ? TWINFLASH_SANSIO_IMAGE_NEW : TWINFLASH_SANSIO_IMAGE_OLD;
    return 0;
}

static int32_t flash_set(flash *f, off_t at, int bank)
{
    uint8_t word = bank ? 1 : 0;
    return flash_result(flash_put(f, at, &word, 1) && fdatasync(f->file) == 0);
}

static int32_t flash_begin(void *data, uint64_t size, uint64_t resume_at, uint64_t *start_at)
{
    flash *f = (flash *)data;
    uint64_t from = (resume_at + FLASH_SECTOR - 1) / FLASH_SECTOR * FLASH_SECTOR;
    if (size > FLASH_BANK_SIZE)
        return 400; /* no space */
    f->length = *start_at = resume_at;
    if (resume_at == 0 && flash_set(f, FLASH_WRITTEN, !flash_word(f, FLASH_GOOD)) != 0)
        return TWINFLASH_SANSIO_STATUS_STORAGE;
    /* Erased from the next sector on. What was written of this one after the last sync is going to be
     * written again, the same bytes. */
    return flash_result(flash_erase(f, flash_spare(f) + (off_t)from, FLASH_BANK_SIZE - (size_t)from));
}

static int32_t flash_write(void *data, uint64_t offset, const uint8_t *bytes, size_t length)
{
    flash *f = (flash *)data;
    if (offset + length > FLASH_BANK_SIZE)
        return 400;
    f->length = offset + length;
    return flash_result(flash_put(f, flash_spare(f) + (off_t)offset, bytes, length));
}

static int32_t flash_sync(void *data, uint64_t *durable)
{
    const flash *f = (flash *)data;
    *durable = f->length;
    return flash_result(fdatasync(f->file) == 0);
}

/* Reads the image back. */
static int32_t flash_finish(void *data, uint64_t size, const uint8_t *sha256)
{
    flash *f = (flash *)data;
    off_t at = flash_spare(f);
    twinflash_sansio_checks *checks = twinflash_sansio_checks_new();
    twinflash_sansio_digests digests;
    while (checks && size > 0) {
        size_t length = size < sizeof f->sector ? (size_t)size : sizeof f->sector;
        if (pread(f->file, f->sector, length, at) != (ssize_t)length)
            break;
        twinflash_sansio_checks_update(checks, f->sector, length);
        at += (off_t)length;
        size -= length;
    }
    memset(&digests, 0, sizeof digests);
    twinflash_sansio_checks_finish(checks, &digests);
    twinflash_sansio_checks_free(checks);
    return flash_result(size == 0 && memcmp(digests.sha256, sha256, sizeof digests.sha256) == 0);
}

static int32_t flash_activate(void *data)
{
    flash *f = (flash *)data;
    return flash_set(f, FLASH_SELECTED, !flash_word(f, FLASH_GOOD));
}

static int32_t flash_confirm(void *data)
{
    flash *f = (flash *)data;
    return flash_set(f, FLASH_GOOD, flash_word(f, FLASH_SELECTED));
}

static int32_t flash_rollback(void *data)
{
    flash *f = (flash *)data;
    return flash_set(f, FLASH_SELECTED, flash_word(f, FLASH_GOOD));
}

/* Opens the flash, made where it is not there: erased, and bank 0 runs. */
static bool flash_open(flash *f, const char *path)
{
    bool made;
    f->length = 0;
    f->file = open(path, O_RDWR | O_CREAT, 0600);
    if (f->file < 0)
        return false;
    made = lseek(f->file, 0, SEEK_END) == FLASH_SIZE;
    return made
        || (flash_erase(f, 0, FLASH_SIZE) && flash_set(f, FLASH_SELECTED, 0) == 0
            && flash_set(f, FLASH_GOOD, 0) == 0 && flash_set(f, FLASH_WRITTEN, 1) == 0);
}

static twinflash_sansio_board flash_board(flash *f)
{
    twinflash_sansio_board board;
    memset(&board, 0, sizeof board);
    board.size = sizeof board;
    board.user_data = f;
    board.load = flash_load;
    board.save = flash_save;
    board.inspect = flash_inspect;
    board.begin = flash_begin;
    board.write = flash_write;
    board.sync = flash_sync;
    board.finish = flash_finish;
    board.activate = flash_activate;
    board.confirm = flash_confirm;
    board.rollback = flash_rollback;
    return board;
}

#endif
