/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz targets: each takes any bytes, calls the library, and stops the program when something is not as promised.
 * With libFuzzer (EMO_FUZZ) the program searches for such bytes; without it, driver.c replays files. */
#ifndef EMO_TESTS_FUZZ_H
#define EMO_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <emo/emo.h>

#include "base/runtime.h"

typedef struct fuzz_target {
    const char *name;
    void (*run)(const uint8_t *data, size_t size);
} fuzz_target;

void fuzz_json(const uint8_t *data, size_t size);
void fuzz_safetensors(const uint8_t *data, size_t size);
void fuzz_config(const uint8_t *data, size_t size);
void fuzz_tokenizer(const uint8_t *data, size_t size);
void fuzz_text(const uint8_t *data, size_t size);
void fuzz_jsonl(const uint8_t *data, size_t size);
void fuzz_gzip(const uint8_t *data, size_t size);
void fuzz_npy(const uint8_t *data, size_t size);
void fuzz_mask(const uint8_t *data, size_t size);
void fuzz_stats(const uint8_t *data, size_t size);
void fuzz_tasks(const uint8_t *data, size_t size);
void fuzz_pool(const uint8_t *data, size_t size);
void fuzz_index(const uint8_t *data, size_t size);
void fuzz_model_folder(const uint8_t *data, size_t size);
void fuzz_mix(const uint8_t *data, size_t size);
void fuzz_recipe(const uint8_t *data, size_t size);
void fuzz_options(const uint8_t *data, size_t size);
void fuzz_checkpoint(const uint8_t *data, size_t size);
void fuzz_gguf(const uint8_t *data, size_t size);
void fuzz_api(const uint8_t *data, size_t size);

/* The target by name; NULL if there is none. */
const fuzz_target *fuzz_find(const char *name);
/* Names of all, for usage lines. */
void fuzz_list(FILE *to);

/* One for the whole program, with one thread and scalar code, and a host allocator that gives at most 64 MiB at once
 * and 512 MiB in all: what a file claims must not decide what the library takes. */
emo_runtime *fuzz_runtime(void);
/* Writes a file into the program's own folder (made on first use, removed at exit) and returns its path; one buffer
 * for each of the last 4 names. data NULL: only the path. */
const char *fuzz_file(const char *name, const uint8_t *data, size_t size);

/* A model of two layers with 5 experts, weights of the seed; three documents of two domains; options of two steps. */
#define FUZZ_CONFIG                                                                                                    \
    "{\"vocab_size\":16,\"hidden_size\":8,\"intermediate_size\":4,\"num_hidden_layers\":2,\"num_attention_heads\":2,"  \
    "\"max_position_embeddings\":32,\"num_experts\":5,\"num_shared_experts\":1,\"num_experts_per_tok\":3,"             \
    "\"eos_token_id\":15}"
emo_model *fuzz_model(uint64_t seed);
emo_dataset *fuzz_data(void);
emo_train_options fuzz_train_options(void);

/* Stops the program, loudly. */
void fuzz_stop(const char *file, int line, const char *what, const char *message);
#define FUZZ_CHECK(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fuzz_stop(__FILE__, __LINE__, #condition, "");                                                             \
    } while (0)
/* A call that may fail: then with the error filled in, and never with EMO_E_INTERNAL. True on success. */
bool fuzz_sane(const char *file, int line, const char *call, emo_status status, const emo_error *err);
#define FUZZ_CALL(call) fuzz_sane(__FILE__, __LINE__, #call, (call), &err)
/* A call that must succeed. */
#define FUZZ_OK(call)                                                                                                  \
    do {                                                                                                               \
        if ((call) != EMO_OK)                                                                                          \
            fuzz_stop(__FILE__, __LINE__, #call, err.message);                                                         \
    } while (0)

#endif
