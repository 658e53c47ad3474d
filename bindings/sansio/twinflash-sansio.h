/* twinflash for firmware without an operating system: the part that does no I/O.
 *
 * Nothing here allocates but where it says so, blocks, or keeps a pointer it was given. Different
 * objects may be used from different threads at once, one object from one at a time. The library
 * needs malloc, calloc, realloc, aligned_alloc, free and abort from the platform.
 */
#ifndef TWINFLASH_SANSIO_H
#define TWINFLASH_SANSIO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library's version, such as "0.1.0". Static. */
const char *twinflash_sansio_version(void);

/* The checks an image must pass, computed while its bytes stream by. About 300 bytes. */
typedef struct twinflash_sansio_checks twinflash_sansio_checks;

/* What the checks come to. */
typedef struct {
    uint16_t crc16;     /* CRC-16/XMODEM */
    uint32_t crc32;     /* CRC-32/ISO-HDLC, as zip has it */
    uint8_t sha256[32]; /* SHA-256 */
} twinflash_sansio_digests;

/* Starts checks over no bytes yet. Allocates; NULL if there is no memory. The caller frees it. */
twinflash_sansio_checks *twinflash_sansio_checks_new(void);

/* Takes the image's next `length` bytes. */
void twinflash_sansio_checks_update(twinflash_sansio_checks *checks, const uint8_t *data,
                                    size_t length);

/* Writes to `digests` what the checks come to over all bytes so far. More may follow. */
void twinflash_sansio_checks_finish(const twinflash_sansio_checks *checks,
                                    twinflash_sansio_digests *digests);

/* Frees checks. NULL is allowed. */
void twinflash_sansio_checks_free(twinflash_sansio_checks *checks);

/* Whether an image with these digests passes a request's check value (`length` bytes of text, no
 * terminating zero needed), such as "31c3", "crc32:cbf43926" or 64 hex digits of SHA-256.
 * 1: it does; 0: it does not; negative, the failure code invalid-check: the value is none.
 * Allocates and frees. */
int twinflash_sansio_check_matches(const char *value, size_t length,
                                   const twinflash_sansio_digests *digests);

#ifdef __cplusplus
}
#endif

#endif
