/* SPDX-License-Identifier: Apache-2.0 */
/* Folders of several files, of which the bytes are one: shards with an index, models, mixes, checkpoints. */
#define _POSIX_C_SOURCE 200809L
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "io/safetensors.h"

/* A file read whole, for putting it back. */
static uint8_t *contents(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc((size_t)1 << 20);
    FUZZ_CHECK(file != NULL && data != NULL);
    *size = fread(data, 1, (size_t)1 << 20, file);
    (void)fclose(file);
    return data;
}

/* ---- model.safetensors.index.json over two shards ---- */

static void write_shard(const char *name, const char *header, size_t bytes) {
    uint8_t file[512] = {0};
    size_t length = strlen(header);
    file[0] = (uint8_t)length;
    memcpy(file + 8, header, length);
    (void)fuzz_file(name, file, 8 + length + bytes);
}

void fuzz_index(const uint8_t *data, size_t size) {
    static bool made;
    emo_error err = EMO_ERROR_INIT;
    emo__st_set *set = NULL;
    char folder[1024];
    (void)snprintf(folder, sizeof folder, "%s", fuzz_file("set", NULL, 0));
    if (!made) {
        FUZZ_CHECK(mkdir(folder, 0700) == 0);
        write_shard("set/one.safetensors",
                    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                    "\"c\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[8,12]}}",
                    12);
        write_shard("set/two.safetensors", "{\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4);
        made = true;
    }
    (void)fuzz_file("set/model.safetensors.index.json", data, size);
    if (!FUZZ_CALL(emo__st_set_open(fuzz_runtime(), folder, &set, &err)))
        return;
    for (size_t i = 0; i < emo__st_set_count(set); i++) {
        const emo__st *st = NULL;
        const emo__st_entry *entry = NULL;
        float values[2];
        FUZZ_CHECK(emo__st_set_has(set, emo__st_set_name(set, i)));
        if (FUZZ_CALL(emo__st_set_find(set, emo__st_set_name(set, i), &st, &entry, &err)))
            (void)FUZZ_CALL(
                emo__st_read_as(st, entry, 0, entry->count < 2 ? entry->count : 2, EMO_DTYPE_F32, values, &err));
    }
    emo__st_set_close(set);
}

/* ---- model folders: the first byte says which file the rest stands for ---- */

void fuzz_model_folder(const uint8_t *data, size_t size) {
    static const char *const names[] = {"config.json",       "pruning_metadata.json", "generation_config.json",
                                        "tokenizer.json",    "tokenizer_config.json", "special_tokens_map.json",
                                        "model.safetensors", "chat_template.jinja"};
    enum { FILES = sizeof names / sizeof names[0] };
    static uint8_t *sound[FILES];
    static size_t sizes[FILES];
    static char folder[1024];
    char name[128];
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    emo_model *again = NULL;
    if (folder[0] == '\0') {
        emo_mask *mask = NULL;
        emo_model *pruned = NULL;
        emo_tokenizer *tok = NULL;
        (void)snprintf(folder, sizeof folder, "%s", fuzz_file("model", NULL, 0));
        model = fuzz_model(1);
        FUZZ_OK(emo_model_mask(model, &mask, &err));
        FUZZ_OK(emo_mask_set(mask, 0, 1, 0, &err));
        FUZZ_OK(emo_model_prune(model, mask, NULL, &pruned, &err));
        FUZZ_OK(emo_model_save(pruned, folder, NULL, &err));
        FUZZ_OK(emo_tokenizer_create_bytes(rt, &tok, &err));
        FUZZ_OK(emo_tokenizer_save(tok, fuzz_file("model/tokenizer.json", NULL, 0), &err));
        emo_tokenizer_release(tok);
        emo_model_release(pruned);
        emo_model_release(model);
        emo_mask_release(mask);
        model = NULL;
        for (size_t i = 0; i < FILES; i++) {
            (void)snprintf(name, sizeof name, "model/%s", names[i]);
            if (access(fuzz_file(name, NULL, 0), R_OK) == 0)
                sound[i] = contents(fuzz_file(name, NULL, 0), &sizes[i]);
        }
    }
    size_t which = size > 0 ? data[0] % FILES : 0;
    (void)snprintf(name, sizeof name, "model/%s", names[which]);
    if (size > 0)
        (void)fuzz_file(name, data + 1, size - 1);
    if (FUZZ_CALL(emo_model_load_path(rt, folder, NULL, &model, &err))) {
        float logits[64];
        const int32_t tokens[2] = {1, 0};
        emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
        const char *copy = fuzz_file("copy", NULL, 0);
        (void)FUZZ_CALL(emo_eval_logits(model, tokens, 2, &o, logits, 64, &err));
        if (FUZZ_CALL(emo_model_save(model, copy, NULL, &err)))
            FUZZ_OK(emo_model_load_path(rt, copy, NULL, &again, &err)); /* what is written can be read */
        emo_model_release(again);
        emo_model_release(model);
    }
    if (sound[which] != NULL)
        (void)fuzz_file(name, sound[which], sizes[which]);
    else
        (void)remove(fuzz_file(name, NULL, 0));
}

/* ---- mix files over a folder of documents ---- */

void fuzz_mix(const uint8_t *data, size_t size) {
    static bool made;
    static emo_tokenizer *tok;
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    const char *mix = NULL;
    char root[1024];
    if (!made) {
        static const uint8_t raw[] = {1, 0, 2, 0, 3, 0, 4, 0};
        static const char lines[] = "{\"text\":\"one\",\"domain\":\"own\"}\n{\"text\":\"two\"}\n";
        FUZZ_OK(emo_tokenizer_create_bytes(rt, &tok, &err));
        FUZZ_CHECK(mkdir(fuzz_file("mix", NULL, 0), 0700) == 0 && mkdir(fuzz_file("mix/f", NULL, 0), 0700) == 0);
        (void)fuzz_file("mix/a.npy", raw, sizeof raw);
        (void)fuzz_file("mix/b.jsonl", (const uint8_t *)lines, sizeof lines - 1);
        (void)fuzz_file("mix/c.txt", (const uint8_t *)"text", 4);
        (void)fuzz_file("mix/empty.npy", raw, 0);
        made = true;
    }
    uint8_t *inside = malloc(size + 1); /* nothing outside the folder is to be read */
    FUZZ_CHECK(inside != NULL);
    for (size_t i = 0; i < size; i++)
        inside[i] = data[i] == '/' ? '_' : data[i];
    mix = fuzz_file("mix/m.mix", inside, size);
    free(inside);
    (void)snprintf(root, sizeof root, "%s", fuzz_file("mix", NULL, 0));
    for (int skip = 0; skip < 2; skip++) {
        emo_dataset *set = NULL;
        emo_dataset_options options = EMO_DATASET_OPTIONS_INIT;
        options.skip_broken = skip;
        options.mix_root = skip == 1 ? root : NULL;
        options.mix_tokenizer = "a";
        if (!FUZZ_CALL(emo_dataset_open(rt, &mix, 1, tok, &options, &set, &err)))
            continue;
        FUZZ_CHECK(emo_dataset_count(set) > 0);
        for (int64_t i = 0; i < emo_dataset_count(set); i++) {
            emo_document d;
            FUZZ_OK(emo_dataset_document(set, i, &d, &err));
            FUZZ_CHECK(d.count > 0 && d.domain >= 0);
        }
        emo_dataset_release(set);
    }
}

/* ---- checkpoints: the first byte says which file of a run the rest stands for ---- */

void fuzz_checkpoint(const uint8_t *data, size_t size) {
    static const char *const names[] = {"state/run.json", "state/latest", "state/step-2/trainer.json",
                                        "state/step-2/optimizer.safetensors", "metrics.jsonl"};
    enum { FILES = sizeof names / sizeof names[0] };
    static uint8_t *sound[FILES];
    static size_t sizes[FILES];
    static char folder[1024];
    char name[128];
    emo_error err = EMO_ERROR_INIT;
    emo_train_options options = fuzz_train_options();
    emo_trainer *trainer = NULL;
    emo_model *model = fuzz_model(1);
    emo_dataset *set = fuzz_data();
    if (folder[0] == '\0') {
        (void)snprintf(folder, sizeof folder, "%s", fuzz_file("run", NULL, 0));
        options.out = folder;
        FUZZ_OK(emo_trainer_create(model, set, &options, &trainer, &err));
        FUZZ_OK(emo_trainer_run(trainer, &err));
        emo_trainer_release(trainer);
        trainer = NULL;
        for (size_t i = 0; i < FILES; i++) {
            (void)snprintf(name, sizeof name, "run/%s", names[i]);
            FILE *file = fopen(fuzz_file(name, NULL, 0), "rb");
            sound[i] = malloc((size_t)1 << 20);
            FUZZ_CHECK(file != NULL && sound[i] != NULL);
            sizes[i] = fread(sound[i], 1, (size_t)1 << 20, file);
            (void)fclose(file);
        }
    }
    options.out = folder;
    options.resume = 1;
    size_t which = size > 0 ? data[0] % FILES : 0;
    (void)snprintf(name, sizeof name, "run/%s", names[which]);
    if (size > 0)
        (void)fuzz_file(name, data + 1, size - 1);
    if (FUZZ_CALL(emo_trainer_create(model, set, &options, &trainer, &err))) {
        FUZZ_CHECK(emo_trainer_at(trainer) >= 0);
        emo_status status = emo_trainer_step(trainer, NULL, &err);
        (void)FUZZ_CALL(status);
    }
    emo_trainer_release(trainer);
    for (size_t i = 0; i < FILES; i++) { /* metrics.jsonl is cut to the checkpoint's step: all of them are put back */
        (void)snprintf(name, sizeof name, "run/%s", names[i]);
        if (i == which || i == FILES - 1)
            (void)fuzz_file(name, sound[i], sizes[i]);
    }
    emo_dataset_release(set);
    emo_model_release(model);
}
