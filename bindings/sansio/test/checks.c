/* Drives the sans-I/O library from C. Exit status 0 if all is as it should be. */
#include <twinflash_sansio.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(int holds, const char *what, int line)
{
    if (!holds) {
        fprintf(stderr, "checks.c:%d: not so: %s\n", line, what);
        exit(1);
    }
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static int matches(const char *value, const twinflash_sansio_digests *digests)
{
    return twinflash_sansio_check_matches(value, strlen(value), digests);
}

int main(void)
{
    
    EXPECT(strcmp(twinflash_sansio_version(), TWINFLASH_SANSIO_VERSION) == 0);

    twinflash_sansio_checks *checks = twinflash_sansio_checks_new();
    EXPECT(checks != NULL);
    twinflash_sansio_checks_update(checks, "1234", 4);
    twinflash_sansio_checks_update(checks, NULL, 0);
    twinflash_sansio_checks_update(checks, "56789", 5);
    twinflash_sansio_digests digests;
    twinflash_sansio_checks_finish(checks, &digests);
    EXPECT(digests.crc16 == 0x31c3);
    EXPECT(digests.crc32 == 0xcbf43926);
    EXPECT(digests.sha256[0] == 0x15 && digests.sha256[31] == 0x25);

    EXPECT(matches("31c3", &digests) == 1);
    EXPECT(matches("0xcbf43926", &digests) == 1);
    EXPECT(matches("sha256:15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
                   &digests) == 1);
    EXPECT(matches("31c4", &digests) == 0);
    EXPECT(matches("123456abcde", &digests) == -103);
    EXPECT(matches("\xff", &digests) == -103);
    EXPECT(twinflash_sansio_check_matches(NULL, 0, &digests) == -103);
    EXPECT(twinflash_sansio_check_matches("31c3", 4, NULL) == -103);

    /* More bytes may follow; and another object knows nothing of this one. */
    uint8_t block[1000];
    memset(block, 0xa5, sizeof block);
    twinflash_sansio_checks *other = twinflash_sansio_checks_new();
    EXPECT(other != NULL);
    twinflash_sansio_checks_update(other, block, sizeof block);
    twinflash_sansio_checks_update(checks, block, sizeof block);
    twinflash_sansio_digests longer, shorter;
    twinflash_sansio_checks_finish(checks, &longer);
    twinflash_sansio_checks_finish(other, &shorter);
    EXPECT(longer.crc32 != digests.crc32 && longer.crc32 != shorter.crc32);
    twinflash_sansio_checks_free(other);
    twinflash_sansio_checks_free(checks);
    twinflash_sansio_checks_free(NULL);
    printf("twinflash-sansio %s: ok\n", twinflash_sansio_version());
    return 0;
}
