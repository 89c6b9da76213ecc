/* SPDX-License-Identifier: Apache-2.0 */
/* Every file the library writes, damaged: cut at each length, bytes changed. Each gives a status that fits and words
 * that name the file; nothing crashes, and the undamaged file works again afterwards. */
#include <stdbool.h>

#include "support/folder.h"
#include "support/stages.h"

static emo_runtime *rt;
static emo_dataset *data;

typedef emo_status (*use_fn)(emo_error *err);

static emo_status use_stats(emo_error *err) {
    emo_stats *stats = NULL;
    emo_status status = emo_stats_load(rt, test_path("stats.json"), &stats, err);
    emo_stats_release(stats);
    return status;
}

static emo_status use_mask(emo_error *err) {
    emo_mask *mask = NULL;
    emo_status status = emo_mask_load(rt, test_path("mask.json"), &mask, err);
    emo_mask_release(mask);
    return status;
}

static emo_status use_choices(emo_error *err) {
    emo_choices *items = NULL;
    emo_status status = emo_choices_open(rt, test_path("items.jsonl"), &items, err);
    emo_choices_release(items);
    return status;
}

/* Loads, and computes with what was loaded: some damage cannot be seen, but it must be harmless. */
static emo_status use_small(emo_error *err) {
    static const int32_t token = 3;
    float logits[STAGES_VOCAB];
    emo_model *model = NULL;
    emo_status status = emo_model_load_path(rt, test_path("small"), NULL, &model, err);
    if (status == EMO_OK && emo_dataset_vocab_size(data) == STAGES_VOCAB) {
        emo_model_info info = EMO_MODEL_INFO_INIT;
        status = emo_model_get_info(model, &info, err);
        if (status == EMO_OK && info.vocab == STAGES_VOCAB)
            status = emo_eval_logits(model, &token, 1, NULL, logits, STAGES_VOCAB, err);
    }
    emo_model_release(model);
    return status;
}

static emo_status use_run(emo_error *err) {
    emo_model *model = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options options = stages_train_options();
    options.out = test_path("run");
    options.resume = 1;
    emo_status status = stages_open_model(rt, &model, err);
    if (status == EMO_OK)
        status = emo_trainer_create(model, data, &options, &trainer, err);
    emo_trainer_release(trainer);
    emo_model_release(model);
    return status;
}

/* A file, who reads it, how far apart the cuts and changes are (1: everywhere), and what a message must name. */
static const struct {
    const char *file;
    use_fn use;
    size_t stride;
    const char *name;
} files[] = {
    {"stats.json", use_stats, 2, "stats.json"},
    {"mask.json", use_mask, 1, "mask"},
    {"items.jsonl", use_choices, 1, "items.jsonl"},
    {"small/config.json", use_small, 7, "config.json"},
    {"small/pruning_metadata.json", use_small, 3, "pruning_metadata.json"},
    {"small/tokenizer.json", use_small, 97, "tokenizer.json"},
    {"small/model.safetensors", use_small, 211, "model.safetensors"},
    {"run/state/run.json", use_run, 9, "run.json"},
    {"run/state/latest", use_run, 1, "state"},
    {"run/state/step-2/trainer.json", use_run, 2, "trainer.json"},
    {"run/state/step-2/optimizer.safetensors", use_run, 2503, "optimizer.safetensors"},
};

static void expect_fitting(const char *file, const char *what, size_t at, emo_status status, const emo_error *err,
                           const char *name) {
    static const emo_status fitting[] = {EMO_E_FORMAT,    EMO_E_UNSUPPORTED, EMO_E_RANGE,
                                         EMO_E_NOT_FOUND, EMO_E_MISMATCH,    EMO_E_LIMIT};
    bool fits = false;
    for (size_t i = 0; i < sizeof fitting / sizeof fitting[0]; i++)
        fits = fits || status == fitting[i];
    if (!fits || err->message[0] == '\0' || (name != NULL && strstr(err->message, name) == NULL))
        fail_msg("%s, %s at %zu: %s '%s'", file, what, at, emo_status_name(status), err->message);
}

static void cut_anywhere(void **state) {
    (void)state;
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        size_t size = 0;
        unsigned char *whole = test_read(test_path(files[f].file), &size);
        size_t end = size; /* without white space at the end: cutting that is no damage */
        while (end > 0 && (whole[end - 1] == '\n' || whole[end - 1] == ' '))
            end--;
        for (size_t cut = 0; cut < end; cut += files[f].stride) {
            emo_error err = EMO_ERROR_INIT;
            (void)test_write(files[f].file, whole, cut);
            emo_status status = files[f].use(&err);
            if (status != EMO_OK)
                expect_fitting(files[f].file, "cut", cut, status, &err, files[f].name);
            else if (files[f].use != use_choices || cut == 0 || whole[cut - 1] == '\0') /* whole lines may be left */
                fail_msg("%s, cut at %zu of %zu, was accepted", files[f].file, cut, size);
        }
        emo_error err = EMO_ERROR_INIT;
        (void)test_write(files[f].file, whole, size);
        EXPECT_OK(files[f].use(&err));
        free(whole);
    }
}

static void bytes_changed_anywhere(void **state) {
    (void)state;
    static const unsigned char values[] = {0, '"', '9', '-', '}', ' ', 0x80, 0xff};
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        size_t size = 0;
        unsigned char *whole = test_read(test_path(files[f].file), &size);
        for (size_t at = 0; at < size; at += files[f].stride) {
            unsigned char old = whole[at];
            /* one bit, and one byte that means something to a parser; which ones changes from place to place */
            const unsigned char changed[2] = {(unsigned char)(old ^ 1u << at % 8),
                                              values[at / files[f].stride % sizeof values]};
            for (size_t i = 0; i < 2; i++) {
                emo_error err = EMO_ERROR_INIT;
                whole[at] = changed[i];
                (void)test_write(files[f].file, whole, size);
                emo_status status = files[f].use(&err);
                if (status != EMO_OK)
                    expect_fitting(files[f].file, "changed", at, status, &err, NULL);
            }
            whole[at] = old;
        }
        emo_error err = EMO_ERROR_INIT;
        (void)test_write(files[f].file, whole, size);
        EXPECT_OK(files[f].use(&err));
        free(whole);
    }
}

/* ---- files that are well-formed and lie ---- */

typedef struct lie {
    const char *file;
    const char *text;
    use_fn use;
    emo_status status;
    const char *words;
} lie;

#define STATS(version, tokens, sums)                                                                                   \
    "{\"format\":\"emo-stats\",\"version\":" version ",\"tokens\":" tokens ",\"probability_sums\":" sums "}"

static const lie lies[] = {
    {"stats.json", "[]", use_stats, EMO_E_FORMAT, "\"format\" is missing"},
    {"stats.json", "{\"format\":\"emo-mask\",\"version\":1,\"tokens\":1,\"probability_sums\":[[1]]}", use_stats,
     EMO_E_FORMAT, "'emo-mask', not 'emo-stats'"},
    {"stats.json", STATS("2", "1", "[[1]]"), use_stats, EMO_E_UNSUPPORTED, "version 2; this library reads 1"},
    {"stats.json", STATS("0", "1", "[[1]]"), use_stats, EMO_E_FORMAT, "\"version\" is 0"},
    {"stats.json", STATS("1", "-1", "[[1]]"), use_stats, EMO_E_FORMAT, "\"tokens\" is -1"},
    {"stats.json", STATS("1", "1e300", "[[1]]"), use_stats, EMO_E_FORMAT, "\"tokens\" must be an integer"},
    {"stats.json", STATS("1", "1", "[]"), use_stats, EMO_E_FORMAT, "lists no layers"},
    {"stats.json", STATS("1", "1", "{}"), use_stats, EMO_E_FORMAT, "lists no layers"},
    {"stats.json", STATS("1", "1", "[[1,-1]]"), use_stats, EMO_E_FORMAT, "layer 0: entry 1 is no sum"},
    {"stats.json", STATS("1", "1", "[[1],[\"1\"]]"), use_stats, EMO_E_FORMAT, "layer 1: entry 0 is no sum"},
    {"stats.json", STATS("1", "1", "[[1],[2]],\"easy_ep_scores\":[[1]]"), use_stats, EMO_E_FORMAT, "1 layers, not 2"},
    {"stats.json", STATS("1", "1", "[[1],[2]],\"easy_ep_scores\":[[1],[]]"), use_stats, EMO_E_FORMAT,
     "layer 1 has 0 experts, not 1"},
    {"items.jsonl", "", use_choices, EMO_E_FORMAT, "holds no items"},
    {"items.jsonl", "\n{\"context\":\"a\",\"choices\":[\"b\"],\"answer\":0}\n", use_choices, EMO_E_FORMAT,
     "items.jsonl:2: \"choices\" must be a list of 2"},
    {"items.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",\"\"],\"answer\":0}\n", use_choices, EMO_E_FORMAT,
     "items.jsonl:1: \"choices\"[1]"},
    {"items.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"answer\":2}\n", use_choices, EMO_E_FORMAT,
     "\"answer\" is 2; it must be in [0, 1]"},
    {"items.jsonl", "{\"choices\":[\"b\",\"c\"],\"answer\":1}\n", use_choices, EMO_E_FORMAT, "\"context\" is missing"},
    {"items.jsonl", "3\n", use_choices, EMO_E_FORMAT, "items.jsonl:1: must be a JSON object"},
    {"run/state/latest", "", use_run, EMO_E_FORMAT, "does not name a checkpoint"},
    {"run/state/latest", "step-", use_run, EMO_E_FORMAT, "does not name a checkpoint"},
    {"run/state/latest", "step--1", use_run, EMO_E_FORMAT, "does not name a checkpoint"},
    {"run/state/latest", "step-2/../step-2", use_run, EMO_E_FORMAT, "does not name a checkpoint"},
    {"run/state/latest", "step-99999999999999999999", use_run, EMO_E_FORMAT, "does not name a checkpoint"},
    {"run/state/latest", "step-7", use_run, EMO_E_NOT_FOUND, "step-7"},
    {"run/state/run.json", "{}", use_run, EMO_E_FORMAT, "\"steps\" is missing"},
    {"run/state/run.json", "{\"steps\":-1}", use_run, EMO_E_FORMAT, "\"steps\" is -1"},
    {"run/state/run.json", "{\"steps\":2}", use_run, EMO_E_MISMATCH, "started with another"},
    {"run/state/step-2/trainer.json", "{}", use_run, EMO_E_FORMAT, "\"step\" is missing"},
    {"run/state/step-2/trainer.json", "{\"step\":3,\"steps\":2,\"tokens\":1,\"isa\":\"avx2\"}", use_run, EMO_E_FORMAT,
     "it is of step 3; its folder is that of step 2"},
    {"run/state/step-2/trainer.json",
     "{\"step\":2000000000000000000,\"steps\":2000000000000000000,\"tokens\":1,\"isa\":\"avx2\"}", use_run,
     EMO_E_FORMAT, "\"step\""},
    {"run/state/step-2/trainer.json", "{\"step\":2,\"steps\":2,\"tokens\":-5,\"isa\":\"avx2\"}", use_run, EMO_E_FORMAT,
     "\"tokens\" is -5"},
    {"run/state/step-2/trainer.json", "{\"step\":2,\"steps\":2,\"tokens\":5,\"isa\":7}", use_run, EMO_E_FORMAT,
     "\"isa\" must be a string"},
};

static void well_formed_lies(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        emo_error err = EMO_ERROR_INIT;
        size_t size = 0;
        unsigned char *whole = test_read(test_path(lies[i].file), &size);
        (void)test_write(lies[i].file, lies[i].text, strlen(lies[i].text));
        emo_status status = lies[i].use(&err);
        if (status != lies[i].status || strstr(err.message, lies[i].words) == NULL)
            fail_msg("%s <- %s: got %s '%s', want %s '%s'", lies[i].file, lies[i].text, emo_status_name(status),
                     err.message, emo_status_name(lies[i].status), lies[i].words);
        (void)test_write(lies[i].file, whole, size);
        free(whole);
    }
}

/* ---- weights: a text of the header replaced by one of the same length ---- */

static const struct {
    const char *from;
    const char *to;
    emo_status status;
    const char *words;
} patches[] = {
    {"\"model.embed_tokens.weight\"", "\"model.embed_tokenz.weight\"", EMO_E_NOT_FOUND, "model.embed_tokens.weight"},
    {"[262, 16]", "[16, 262]", EMO_E_MISMATCH, "[16, 262]; [262, 16] is expected"},
    {"[262, 16]", "[261, 16]", EMO_E_FORMAT, "number of bytes"},
    {"\"F32\"", "\"I32\"", EMO_E_UNSUPPORTED, "I32"},
    {"\"F32\"", "\"F64\"", EMO_E_FORMAT, "number of bytes"},
    {"\"F32\"", "\"XYZ\"", EMO_E_UNSUPPORTED, "XYZ"},
    {"\"data_offsets\"", "\"data_offsetz\"", EMO_E_FORMAT, "data_offsets"},
    {"\"dtype\"", "\"dtypo\"", EMO_E_FORMAT, "dtype"},
    {"\"shape\"", "\"shade\"", EMO_E_FORMAT, "shape"},
};

static void weights_with_wrong_headers(void **state) {
    (void)state;
    size_t size = 0;
    unsigned char *whole = test_read(test_path("small/model.safetensors"), &size);
    for (size_t i = 0; i < sizeof patches / sizeof patches[0]; i++) {
        emo_error err = EMO_ERROR_INIT;
        size_t n = strlen(patches[i].from);
        size_t at = 8;
        assert_int_equal(n, strlen(patches[i].to));
        while (at + n < size && memcmp(whole + at, patches[i].from, n) != 0)
            at++;
        if (at + n >= size)
            fail_msg("the header has no %s", patches[i].from);
        memcpy(whole + at, patches[i].to, n);
        (void)test_write("small/model.safetensors", whole, size);
        EXPECT_STATUS(use_small(&err), patches[i].status, patches[i].words);
        memcpy(whole + at, patches[i].from, n);
    }
    (void)test_write("small/model.safetensors", whole, size);
    free(whole);
}

/* An index in place of the one file. */
static const struct {
    const char *text;
    emo_status status;
    const char *words;
} indexes[] = {
    {"", EMO_E_FORMAT, "model.safetensors.index.json"},
    {"{}", EMO_E_FORMAT, "\"weight_map\" must be an object"},
    {"{\"weight_map\":[]}", EMO_E_FORMAT, "\"weight_map\" must be an object"},
    {"{\"weight_map\":{}}", EMO_E_NOT_FOUND, "there is no tensor"},
    {"{\"weight_map\":{\"model.norm.weight\":3}}", EMO_E_FORMAT, "\"model.norm.weight\" must be a plain name"},
    {"{\"weight_map\":{\"model.norm.weight\":\"../x\"}}", EMO_E_FORMAT, "must be a plain name"},
    {"{\"weight_map\":{\"model.norm.weight\":\"\"}}", EMO_E_FORMAT, "must be a plain name"},
    {"{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}", EMO_E_FORMAT, "duplicate"},
    {"{\"weight_map\":{\"model.embed_tokens.weight\":\"nowhere.safetensors\"}}", EMO_E_NOT_FOUND,
     "nowhere.safetensors"},
    {"{\"weight_map\":{\"model.embed_tokens.weight\":\"config.json\"}}", EMO_E_FORMAT, "not a safetensors file"},
};

static void wrong_indexes(void **state) {
    (void)state;
    char aside[1024];
    char path[1024];
    (void)snprintf(aside, sizeof aside, "%s", test_path("small/aside"));
    (void)snprintf(path, sizeof path, "%s", test_path("small/model.safetensors"));
    assert_int_equal(rename(path, aside), 0);
    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0]; i++) {
        emo_error err = EMO_ERROR_INIT;
        (void)test_write("small/model.safetensors.index.json", indexes[i].text, strlen(indexes[i].text));
        EXPECT_STATUS(use_small(&err), indexes[i].status, indexes[i].words);
    }
    emo_error err = EMO_ERROR_INIT;
    assert_int_equal(remove(test_path("small/model.safetensors.index.json")), 0);
    EXPECT_STATUS(use_small(&err), EMO_E_NOT_FOUND, "holds neither model.safetensors nor");
    assert_int_equal(rename(aside, path), 0);
    EXPECT_OK(use_small(&err));
}

/* ---- documents ---- */

static void damaged_documents(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const char text[] = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n{\"text\": \"three\"}\n";
    size_t size = 0;
    unsigned char *whole = test_read(test_append_gzip("d.jsonl.gz", text, sizeof text - 1), &size);
    emo_model *model = NULL;
    EXPECT_OK(stages_open_model(rt, &model, &err));
    const emo_tokenizer *tok = emo_model_tokenizer(model);
    emo_dataset *got = NULL;
    char path[1024];
    (void)snprintf(path, sizeof path, "%s", test_path("d.jsonl.gz"));
    const char *paths[1] = {path};
    emo_dataset_options skip = EMO_DATASET_OPTIONS_INIT;
    skip.skip_broken = 1;
    for (size_t cut = 3; cut < size; cut++) {
        (void)test_write("d.jsonl.gz", whole, cut);
        EXPECT_STATUS(emo_dataset_open(rt, paths, 1, tok, NULL, &got, &err), EMO_E_FORMAT,
                      "d.jsonl.gz: the file ends inside the gzip data");
        if (emo_dataset_open(rt, paths, 1, tok, &skip, &got, &err) == EMO_OK) {
            assert_int_equal(emo_dataset_skipped(got), 1); /* the lines before the damage are kept */
            emo_dataset_release(got);
        } else {
            assert_int_equal(err.code, EMO_E_FORMAT);
        }
    }
    whole[size / 2] ^= 0x10;
    (void)test_write("d.jsonl.gz", whole, size);
    EXPECT_STATUS(emo_dataset_open(rt, paths, 1, tok, NULL, &got, &err), EMO_E_FORMAT, "d.jsonl.gz");
    free(whole);

    /* tokens: a header that lies, an id outside the vocabulary, half a token */
    static const char *const dicts[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
        "dtype '<f4'",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (9,), }",
        "larger than the file",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1, 1), }",
        "one dimension",
        "{'fortran_order': False, 'shape': (1,), }",
        "'descr', 'fortran_order' or 'shape' is missing",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1,), }",
        "token 0 is 65535",
    };
    (void)snprintf(path, sizeof path, "%s", test_path("t.npy"));
    for (size_t i = 0; i < sizeof dicts / sizeof dicts[0]; i += 2) {
        unsigned char file[128] = "\x93NUMPY\x01";
        size_t n = strlen(dicts[i]);
        file[8] = (unsigned char)n;
        memcpy(file + 10, dicts[i], n);
        memcpy(file + 10 + n, "\xff\xff", 2);
        (void)test_write("t.npy", file, 12 + n);
        emo_status status = emo_dataset_open(rt, paths, 1, tok, NULL, &got, &err);
        if ((status != EMO_E_FORMAT && status != EMO_E_UNSUPPORTED) || strstr(err.message, dicts[i + 1]) == NULL ||
            strstr(err.message, "t.npy") == NULL)
            fail_msg("%s: %s '%s'", dicts[i], emo_status_name(status), err.message);
    }
    (void)test_write("t.npy", "abc", 3);
    EXPECT_STATUS(emo_dataset_open(rt, paths, 1, tok, NULL, &got, &err), EMO_E_FORMAT, "no .npy header, and 3 bytes");

    /* the count of what was left out, over several files */
    static const char mixed[] = "{\"text\": 5}\n{\"text\": \"good\"}\nno\n{\"domain\": \"x\"}\n";
    char second[1024];
    (void)snprintf(second, sizeof second, "%s", test_write("m.jsonl", mixed, sizeof mixed - 1));
    (void)snprintf(path, sizeof path, "%s", test_write("n.txt", "\xff\xfe", 2));
    const char *two[2] = {path, second};
    EXPECT_STATUS(emo_dataset_open(rt, two, 2, tok, NULL, &got, &err), EMO_E_FORMAT,
                  "n.txt: the text is not valid UTF-8");
    EXPECT_OK(emo_dataset_open(rt, two, 2, tok, &skip, &got, &err));
    assert_int_equal(emo_dataset_skipped(got), 4);
    assert_int_equal(emo_dataset_count(got), 1);
    emo_dataset_release(got);
    emo_model_release(model);
}

/* ---- a mask smaller than top-k ---- */

typedef struct heard {
    int warnings;
    char last[512];
} heard;

static void hear(void *ctx, emo_log_level level, const char *message) {
    heard *h = ctx;
    if (level != EMO_LOG_WARNING)
        return;
    h->warnings++;
    (void)snprintf(h->last, sizeof h->last, "%s", message);
}

static void small_masks_are_reported(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    heard log = {0};
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = 1;
    options.log.ctx = &log;
    options.log.log = hear;
    options.log.level = EMO_LOG_WARNING;
    emo_runtime *own = NULL;
    emo_model *model = NULL;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_runtime_create(&options, &own, &err));
    EXPECT_OK(stages_open_model(own, &model, &err));
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    for (int32_t l = 0; l < 2; l++) {
        for (int32_t e = l; e < 8; e++) /* nothing in layer 0, one expert in layer 1; tokens choose two */
            EXPECT_OK(emo_mask_set(mask, l, e, 0, &err));
    }
    static const int32_t tokens[] = {3, 4, 5};
    float logits[3 * STAGES_VOCAB];
    float again[STAGES_VOCAB];
    emo_eval_options eval = EMO_EVAL_OPTIONS_INIT;
    EXPECT_OK(emo_eval_logits(model, tokens, 3, &eval, logits, 3 * STAGES_VOCAB, &err));
    assert_int_equal(log.warnings, 0);
    eval.mask = mask;
    EXPECT_OK(emo_eval_logits(model, tokens, 3, &eval, logits, 3 * STAGES_VOCAB, &err));
    assert_int_equal(log.warnings, 1);
    if (strstr(log.last, "layer 0: 0 routed experts are left") == NULL || strstr(log.last, "(2 such layers)") == NULL)
        fail_msg("%s", log.last);
    /* sessions agree with the evaluation, and say it too; also with a pool chosen inside the mask */
    for (int with_pool = 0; with_pool < 2; with_pool++) {
        emo_session *session = NULL;
        emo_pool_policy *pool = NULL;
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;
        emo_state at = EMO_STATE_PENDING;
        EXPECT_OK(emo_pool_policy_from_prompt(own, 4, &pool, &err));
        o.mask = mask;
        o.max_tokens = -1;
        o.pool = with_pool != 0 ? pool : NULL;
        EXPECT_OK(emo_session_create(model, &o, &session, &err));
        assert_int_equal(log.warnings, 2 + with_pool);
        EXPECT_OK(emo_session_append_tokens(session, 0, tokens, 3, &err));
        while (at != EMO_STATE_DONE)
            EXPECT_OK(emo_session_advance(session, NULL, &at, &err));
        EXPECT_OK(emo_session_logits(session, 0, again, STAGES_VOCAB, &err));
        /* the same operators on the same numbers; only the attention sums in another order */
        assert_true(test_max_diff(again, logits + 2 * STAGES_VOCAB, STAGES_VOCAB) < 1e-5);
        emo_session_release(session);
        emo_pool_policy_release(pool);
    }
    /* a trainer says it once, also when it validates; the router alone once for each number that is left */
    emo_dataset *own_data = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options train = stages_train_options();
    EXPECT_OK(stages_open_data(own, &own_data, &err));
    log = (heard){0};
    train.mask = mask;
    train.valid = own_data;
    train.valid_every = 1;
    EXPECT_OK(emo_trainer_create(model, own_data, &train, &trainer, &err));
    EXPECT_OK(emo_trainer_run(trainer, &err));
    emo_trainer_release(trainer);
    emo_dataset_release(own_data);
    assert_int_equal(log.warnings, 1);
    assert_non_null(strstr(log.last, "layer 0: 0 routed experts are left"));
    static const float x[2] = {1.0f, -1.0f};
    emo_router *router = NULL;
    emo_router_options shape = EMO_ROUTER_OPTIONS_INIT;
    emo_router_batch batch = EMO_ROUTER_BATCH_INIT;
    emo_routing routing = EMO_ROUTING_INIT;
    shape.hidden = 2;
    shape.experts = 9;
    shape.shared = 1;
    shape.top_k = 3;
    batch.rows = 1;
    batch.seq_len = 1;
    batch.x = x;
    EXPECT_OK(emo_router_create(own, &shape, &router, &err));
    for (int i = 0; i < 6; i++) {
        const emo_mask *masks[] = {NULL, mask, mask, NULL, mask, mask};
        EXPECT_OK(emo_router_forward(router, &batch, NULL, masks[i], &routing, &err));
        assert_int_equal(log.warnings, 1 + (i > 0) + (i > 3));
        assert_int_equal(routing.indices[0] >= 0, masks[i] == NULL);
    }
    emo_router_release(router);
    /* what cannot be written as a checkpoint is refused by name */
    emo_model *small = NULL;
    EXPECT_STATUS(emo_model_prune(model, mask, NULL, &small, &err), EMO_E_INVALID_ARGUMENT,
                  "layer 0 would keep no routed expert");
    emo_mask_release(mask);
    emo_model_release(model);
    emo_runtime_release(own);
}

static int setup(void **state) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    emo_model *small = NULL;
    emo_stats *stats = NULL;
    emo_mask *mask = NULL;
    emo_trainer *trainer = NULL;
    (void)stages_setup(state);
    rt = test_runtime(1, EMO_ISA_AUTO);
    EXPECT_OK(stages_open_model(rt, &model, &err));
    EXPECT_OK(stages_open_data(rt, &data, &err));
    emo_stats_options collect = EMO_STATS_OPTIONS_INIT;
    collect.easy_ep = 1;
    EXPECT_OK(emo_stats_collect(model, data, &collect, &stats, &err));
    EXPECT_OK(emo_stats_save(stats, test_path("stats.json"), &err));
    emo_select_options select = EMO_SELECT_OPTIONS_INIT;
    select.keep = 4;
    EXPECT_OK(emo_select_from_stats(model, stats, &select, &mask, &err));
    EXPECT_OK(emo_mask_save(mask, test_path("mask.json"), &err));
    EXPECT_OK(emo_model_prune(model, mask, NULL, &small, &err));
    EXPECT_OK(emo_model_save(small, test_path("small"), NULL, &err));
    static const char items[] = "{\"id\":\"1\",\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"answer\":1}\n";
    (void)test_write("items.jsonl", items, sizeof items - 1);
    emo_train_options train = stages_train_options();
    train.out = test_path("run");
    EXPECT_OK(emo_trainer_create(model, data, &train, &trainer, &err));
    EXPECT_OK(emo_trainer_run(trainer, &err));
    emo_trainer_release(trainer);
    emo_mask_release(mask);
    emo_stats_release(stats);
    emo_model_release(small);
    emo_model_release(model);
    return 0;
}
static int teardown(void **state) {
    emo_dataset_release(data);
    emo_runtime_release(rt);
    return stages_teardown(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(bytes_changed_anywhere),
        cmocka_unit_test(well_formed_lies),
        cmocka_unit_test(weights_with_wrong_headers),
        cmocka_unit_test(wrong_indexes),
        cmocka_unit_test(damaged_documents),
        cmocka_unit_test(small_masks_are_reported),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
