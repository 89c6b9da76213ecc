/* SPDX-License-Identifier: Apache-2.0 */
/* emo_golden DIR: checks every case below DIR, one line each; status 1 when one fails. */
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "golden/golden.h"
#include "support/mirror.h"

typedef void (*checker)(const golden_case *c, golden_result *r);

static checker find_checker(const char *family) {
    if (strcmp(family, "router") == 0)
        return golden_router;
    if (strcmp(family, "infer") == 0)
        return golden_infer;
    if (strcmp(family, "train") == 0)
        return golden_train;
    if (strcmp(family, "subset") == 0)
        return golden_subset;
    return strcmp(family, "optim") == 0 ? golden_optim : NULL;
}

static const char *device; /* as in golden_case */

static void check(emo_runtime *rt, const char *dir, const emo__json *json, golden_result *r) {
    golden_case c;
    memset(&c, 0, sizeof c);
    c.dir = dir;
    c.json = json;
    c.rt = rt;
    c.device = device;
    const char *family = golden_text(emo__json_get(json, "family"));
    checker run = family != NULL ? find_checker(family) : NULL;
    char path[4096];
    char why[512];
    (void)snprintf(path, sizeof path, "%s/tensors.safetensors", dir);
    if (family == NULL)
        golden_fail(r, "case.json has no family");
    else if (run == NULL)
        golden_fail(r, "no checker for the family %s", family);
    else if (golden_read(path, &c.file, why, sizeof why) != 0)
        golden_fail(r, "%s", why);
    else
        run(&c, r);
    golden_free(&c.file);
}

/* Prints the line of a case; 1 when it failed. */
static int one(emo_runtime *rt, const char *dir) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/case.json", dir);
    emo_error why = EMO_ERROR_INIT;
    emo__json *json = NULL;
    (void)!emo__json_load(golden_mem(), path, (size_t)1 << 30, &json, &why);
    golden_result r;
    memset(&r, 0, sizeof r);
    if (json == NULL)
        golden_fail(&r, "%s", why.message);
    else
        check(rt, dir, json, &r);
    const char *family = golden_text(emo__json_get(json, "family"));
    const char *base = strrchr(dir, '/');
    (void)printf("%s %s/%s", r.failed ? "FAIL" : "PASS", family != NULL ? family : "?", base != NULL ? base + 1 : dir);
    if (r.quantity[0] != '\0')
        (void)printf(" error %.3g tolerance %.3g (%s)", r.error, r.tolerance, r.quantity);
    if (r.failed)
        (void)printf(": %s", r.message);
    (void)printf("\n");
    (void)fflush(stdout);
    emo__json_free(json);
    return r.failed;
}

int golden_model(const golden_case *c, golden_result *r, emo_model **out) {
    emo_error err = EMO_ERROR_INIT;
    if (golden_call(r, emo_model_load_path(c->rt, c->dir, NULL, out, &err), &err, "loading the model") != 0)
        return 1;
    return c->device == NULL ? 0 : golden_call(r, emo_model_to_device(*out, c->device, &err), &err, "moving the model");
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void walk(emo_runtime *rt, const char *dir, int depth, int *passed, int *failed) {
    char path[4096];
    struct stat info;
    (void)snprintf(path, sizeof path, "%s/case.json", dir);
    if (stat(path, &info) == 0) {
        int bad = one(rt, dir);
        *failed += bad != 0;
        *passed += bad == 0;
    }
    DIR *d = depth < 8 ? opendir(dir) : NULL;
    if (d == NULL)
        return;
    char **names = NULL;
    size_t count = 0;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
            continue;
        char **more = realloc(names, (count + 1) * sizeof *names);
        char *copy = malloc(strlen(path) + 1);
        if (more != NULL)
            names = more;
        if (more == NULL || copy == NULL) {
            free(copy);
            break;
        }
        memcpy(copy, path, strlen(path) + 1);
        names[count++] = copy;
    }
    (void)closedir(d);
    if (count > 0)
        qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        walk(rt, names[i], depth + 1, passed, failed);
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 4) {
        (void)fprintf(stderr, "usage: %s DIR [PLUGIN DEVICE]\n", argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    if (emo_runtime_create(NULL, &rt, &err) != EMO_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        return 2;
    }
    if (argc == 4) { /* models on the device, and operators that are called by themselves */
        device = argv[3];
        mirror_install(rt, argv[2]);
    }
    int passed = 0;
    int failed = 0;
    walk(rt, argv[1], 0, &passed, &failed);
    if (device != NULL)
        mirror_remove(rt);
    emo_runtime_release(rt);
    if (passed + failed == 0) {
        (void)printf("no case.json below %s\n", argv[1]);
        failed = 1;
    }
    (void)printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
