/* SPDX-License-Identifier: Apache-2.0 */
/* emo_fuzz TARGET [--mutate N] FILE|FOLDER...: gives a target the bytes of each file and, N times, those bytes changed
 * a little, always in the same ways. Ends with 0 when nothing stopped the program. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz/fuzz.h"

#ifndef EMO_FUZZ
#define MOST ((size_t)1 << 20)

static uint64_t state;

static uint64_t draw(uint64_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

/* Changes data[0..size), which has room for 16 bytes more; returns the new size. */
static size_t mutate(uint8_t *data, size_t size) {
    static const char *const words[] = {
        "0",  "-1",       "9223372036854775807", "1e308", "\"", "{", "}", "[", "]", ",", ":", "null", "\\u0000", "\xff",
        "\n", "999999999"};
    for (uint64_t n = draw(4) + 1; n > 0; n--) {
        size_t at = size > 0 ? (size_t)draw(size) : 0;
        const char *word = words[draw(sizeof words / sizeof words[0])];
        size_t length = strlen(word);
        switch (draw(5)) {
        case 0: /* a bit */
            if (size > 0)
                data[at] ^= (uint8_t)(1u << draw(8));
            break;
        case 1: /* a byte */
            if (size > 0)
                data[at] = (uint8_t)draw(256);
            break;
        case 2: /* a cut */
            size = at;
            break;
        case 3: /* a piece less */
            if (size > 0) {
                size_t gone = (size_t)draw(size - at < 16 ? size - at : 16);
                memmove(data + at, data + at + gone, size - at - gone);
                size -= gone;
            }
            break;
        default: /* a word over what is there */
            if (at + length <= size)
                memcpy(data + at, word, length);
            break;
        }
    }
    return size;
}

static int replay(const fuzz_target *target, const char *path, long mutations) {
    FILE *file = fopen(path, "rb");
    uint8_t *whole = malloc(MOST);
    size_t size = file != NULL && whole != NULL ? fread(whole, 1, MOST, file) : 0;
    if (file == NULL || whole == NULL) {
        (void)fprintf(stderr, "emo_fuzz: cannot read %s\n", path);
        free(whole);
        if (file != NULL)
            (void)fclose(file);
        return 1;
    }
    (void)fclose(file);
    for (long i = 0; i <= mutations; i++) {
        uint8_t *copy = malloc(size + 1); /* of this size, so that a sanitizer sees what reads beyond it */
        FUZZ_CHECK(copy != NULL);
        memcpy(copy, whole, size);
        state = 0x9e3779b97f4a7c15u * (uint64_t)(i + 1);
        size_t n = i > 0 ? mutate(copy, size) : size;
        target->run(copy, n);
        free(copy);
    }
    free(whole);
    return 0;
}

static int replay_folder(const fuzz_target *target, const char *path, long mutations, long *count) {
    struct dirent **names = NULL;
    int n = scandir(path, &names, NULL, alphasort);
    int bad = n < 0;
    for (int i = 0; i < n; i++) {
        char file[2048];
        if (names[i]->d_name[0] != '.') {
            (void)snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
            bad |= replay(target, file, mutations);
            (*count)++;
        }
        free(names[i]);
    }
    free(names);
    return bad;
}

int main(int argc, char **argv) {
    const fuzz_target *target = argc > 1 ? fuzz_find(argv[1]) : NULL;
    long mutations = 0;
    long count = 0;
    int bad = 0;
    if (target == NULL) {
        (void)fprintf(stderr, "usage: emo_fuzz TARGET [--mutate N] FILE|FOLDER...; targets: ");
        fuzz_list(stderr);
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        struct stat st;
        if (strcmp(argv[i], "--mutate") == 0 && i + 1 < argc) {
            mutations = strtol(argv[++i], NULL, 10);
        } else if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            bad |= replay_folder(target, argv[i], mutations, &count);
        } else {
            bad |= replay(target, argv[i], mutations);
            count++;
        }
    }
    target->run((const uint8_t *)"", 0);
    (void)printf("%s: %ld files, each as it is and changed in %ld ways\n", target->name, count, mutations);
    return bad != 0 || count == 0;
}
#endif
