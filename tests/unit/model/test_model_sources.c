/* SPDX-License-Identifier: Apache-2.0 */
/* A folder, mapped or read, memory and the host's own storage are one and the same to a model: equal bits, equal
 * statuses. */
#include <emo/emo.h>

#include "model/files.h"
#include "support/folder.h"
#include "support/meter.h"
#include "support/support.h"
#include "tensor/dtype.h"

static const char config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":64,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"max_position_embeddings\":64,\"num_experts_per_tok\":3,"
    "\"num_experts_per_layer\":[6,0,5],\"num_shared_experts_per_layer\":[1,0,1],\"dense_intermediate_size\":12,"
    "\"initializer_range\":0.3,\"eos_token_id\":1,\"pad_token_id\":0}";

TEST_RUNTIME_AND_FOLDER(2, EMO_ISA_AUTO)

/* A host's file: no map, or one at an odd address; its reads fail from the fail_at-th on with a code of its own. */
typedef struct host_file {
    unsigned char *data; /* one byte of slack in front */
    size_t size;
    int mapped;
    long reads, fail_at;
    int released;
} host_file;

static emo_status host_size(void *ctx, uint64_t *size) {
    *size = ((host_file *)ctx)->size;
    return EMO_OK;
}
static emo_status host_read(void *ctx, uint64_t offset, void *data, size_t size) {
    host_file *f = ctx;
    if (f->fail_at >= 0 && f->reads++ >= f->fail_at)
        return EMO_E_NOT_FOUND;
    assert_true(offset <= f->size && size <= f->size - offset);
    memcpy(data, f->data + 1 + offset, size);
    return EMO_OK;
}
static const void *host_map(void *ctx) { return ((host_file *)ctx)->data + 1; }
static void host_release(void *ctx) { ((host_file *)ctx)->released++; }

/* ---- The ways to load ---- */

enum { MAPPED, READ, BY_PATH, MEMORY, HOST, HOST_MAPPED, WAYS };
static const char *const way_names[] = {"folder", "folder, no_map", "path source", "memory", "host", "host, mapped"};
enum { MOST_FILES = 64 };

typedef struct files {
    const char *names[MOST_FILES];
    host_file host[MOST_FILES];
    size_t count;
} files;

static files read_files(const char *const *names, size_t count) {
    files f;
    memset(&f, 0, sizeof f);
    for (size_t i = 0; i < count; i++) {
        unsigned char *data = test_read(test_path(names[i]), &f.host[i].size);
        f.names[i] = names[i];
        f.host[i].data = malloc(f.host[i].size + 1);
        assert_non_null(f.host[i].data);
        memcpy(f.host[i].data + 1, data, f.host[i].size);
        f.host[i].fail_at = -1;
        free(data);
    }
    f.count = count;
    return f;
}

/* The shards of a folder, however many there are. */
static files read_shards(const char *folder) {
    static char names[MOST_FILES][64];
    const char *list[MOST_FILES];
    for (size_t count = 2; count < MOST_FILES; count++) {
        for (size_t i = 0; i < count; i++) {
            snprintf(names[i], sizeof names[i], "%s/model-%05zu-of-%05zu.safetensors", folder, i + 1, count);
            list[i] = names[i];
        }
        FILE *file = fopen(test_path(names[0]), "rb");
        if (file != NULL) {
            fclose(file);
            return read_files(list, count);
        }
    }
    fail_msg("%s has no shards", folder);
    return read_files(list, 0);
}

static void free_files(files *f) {
    for (size_t i = 0; i < f->count; i++)
        free(f->host[i].data);
}

static emo_status load(emo_runtime *own, int way, const char *folder, const char *text, files *f,
                       const emo_model_load_options *given, emo_model **out, emo_error *err) {
    emo_model_load_options options = *given;
    emo_source *sources[MOST_FILES] = {NULL};
    emo_status status = EMO_OK;
    *out = NULL;
    options.no_map = way == READ;
    if (way == MAPPED || way == READ)
        return emo_model_load_path(own, test_path(folder), &options, out, err);
    for (size_t i = 0; status == EMO_OK && i < f->count; i++) {
        host_file *h = &f->host[i];
        emo_source_vtable vtable = EMO_SOURCE_VTABLE_INIT;
        vtable.size = host_size;
        vtable.read_at = host_read;
        vtable.map = way == HOST_MAPPED ? host_map : NULL;
        vtable.release = host_release;
        if (way == BY_PATH)
            status = emo_source_open_path(own, test_path(f->names[i]), &sources[i], err);
        else if (way == MEMORY)
            status = emo_source_from_memory(own, h->data + 1, h->size, &sources[i], err);
        else
            status = emo_source_create(own, &vtable, h, &sources[i], err);
    }
    if (status == EMO_OK)
        status = emo_model_load_sources(own, text, strlen(text), sources, f->count, &options, out, err);
    for (size_t i = 0; i < f->count; i++)
        emo_source_release(sources[i]);
    return status;
}

static void expect_same_weights(const emo_model *a, const emo_model *b, const char *way) {
    assert_int_equal(a->n_params, b->n_params);
    for (size_t i = 0; i < a->n_params; i++) {
        const emo_weight *p = a->params[i].view;
        const emo_weight *q = b->params[i].view;
        if ((p->data == NULL) != (q->data == NULL) || p->dtype != q->dtype)
            fail_msg("%s: tensor %zu differs in what is there", way, i);
        if (p->data != NULL &&
            memcmp(p->data, q->data, (size_t)emo__param_count(&a->params[i]) * emo__dtype_size(p->dtype)) != 0)
            fail_msg("%s: tensor %zu has other bytes", way, i);
    }
}

/* The logits after a few tokens. */
static void run(emo_model *model, float logits[64]) {
    static const int32_t prompt[] = {5, 9, 33, 2, 60, 17, 17, 8};
    emo_error err = EMO_ERROR_INIT;
    emo_session *session = NULL;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_state state = EMO_STATE_PENDING;
    options.max_tokens = -1;
    EXPECT_OK(emo_session_create(model, &options, &session, &err));
    EXPECT_OK(emo_session_append_tokens(session, 0, prompt, 8, &err));
    while (state != EMO_STATE_DONE)
        EXPECT_OK(emo_session_advance(session, NULL, &state, &err));
    EXPECT_OK(emo_session_logits(session, 0, logits, 64, &err));
    emo_session_release(session);
}

static emo_model *make(uint64_t seed) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    options.seed = seed;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), &options, &model, &err));
    return model;
}

static void save(const emo_model *model, const char *folder, emo_dtype dtype, uint64_t shard) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_save_options options = EMO_MODEL_SAVE_OPTIONS_INIT;
    options.dtype = dtype;
    options.shard_bytes = shard;
    EXPECT_OK(emo_model_save(model, test_path(folder), &options, &err));
}

static void every_way_gives_the_same_bits(void **state) {
    (void)state;
    static const char *const single[] = {"one/model.safetensors"};
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(7);
    save(model, "one", EMO_DTYPE_BF16, 0);
    save(model, "some", EMO_DTYPE_BF16, 8192);
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 2, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 2, 0, 0, &err));
    for (int round = 0; round < 8; round++) {
        bool shards = (round & 1) != 0;
        emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
        options.dtype = (round & 2) != 0 ? EMO_DTYPE_F32 : -1;
        options.subset = (round & 4) != 0 ? mask : NULL;
        files f = shards ? read_shards("some") : read_files(single, 1);
        emo_model *first = NULL;
        float want[64], got[64];
        for (int way = 0; way < WAYS; way++) {
            emo_model *loaded = NULL;
            EXPECT_OK(load(rt, way, shards ? "some" : "one", config, &f, &options, &loaded, &err));
            run(loaded, way == 0 ? want : got);
            if (way == 0) {
                first = loaded;
                continue;
            }
            expect_same_weights(first, loaded, way_names[way]);
            if (memcmp(want, got, sizeof want) != 0)
                fail_msg("%s: other logits, round %d", way_names[way], round);
            emo_model_release(loaded);
        }
        emo_model_release(first);
        for (size_t i = 0; i < f.count; i++)
            assert_int_equal(f.host[i].released, 2); /* both ways through the host gave their sources back */
        free_files(&f);
    }
    emo_mask_release(mask);
    emo_model_release(model);
}

static void a_pruned_model_keeps_its_ids_through_sources(void **state) {
    (void)state;
    static const char *const names[] = {"pruned/model.safetensors"};
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(4), *small = NULL, *back = NULL;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 0, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 2, 2, 0, &err));
    EXPECT_OK(emo_model_prune(model, mask, NULL, &small, &err));
    save(small, "pruned", -1, 0);
    files f = read_files(names, 1);
    size_t n = 0;
    char *text = (char *)test_read(test_path("pruned/config.json"), &n);
    char *pruning = NULL;
    text[n] = '\0';
    pruning = (char *)test_read(test_path("pruned/pruning_metadata.json"), &n);
    pruning[n] = '\0';
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    EXPECT_OK(load(rt, MEMORY, NULL, text, &f, &options, &back, &err));
    assert_int_equal(emo_model_original_expert(back, 0, 0), 0); /* nobody told it */
    emo_model_release(back);
    options.pruning = pruning;
    EXPECT_OK(load(rt, MEMORY, NULL, text, &f, &options, &back, &err));
    for (int32_t e = 0; e < 5; e++)
        assert_int_equal(emo_model_original_expert(back, 0, e), e + 1);
    assert_int_equal(emo_model_original_expert(back, 2, 2), 3);
    emo_model_release(back);
    options.pruning = "{\"experts_kept_per_layer\":[[1],[],[2]]}";
    EXPECT_STATUS(load(rt, MEMORY, NULL, text, &f, &options, &back, &err), EMO_E_FORMAT, "layer 0");
    EXPECT_STATUS(load(rt, MAPPED, "pruned", text, &f, &options, &back, &err), EMO_E_FORMAT, "layer 0");
    free(text);
    free(pruning);
    free_files(&f);
    emo_mask_release(mask);
    emo_model_release(small);
    emo_model_release(model);
}

/* Replaces the first `from` behind `after` in the header by as many characters. */
static void patch(unsigned char *data, size_t size, const char *after, const char *from, const char *to) {
    size_t n = strlen(from);
    assert_int_equal(n, strlen(to));
    bool seen = after[0] == '\0';
    for (size_t i = 8; i + n < size; i++) {
        seen = seen || memcmp(data + i, after, strlen(after)) == 0;
        if (seen && memcmp(data + i, from, n) == 0) {
            memcpy(data + i, to, n);
            return;
        }
    }
    fail_msg("'%s' is not in the header", from);
}

static void every_way_refuses_alike(void **state) {
    (void)state;
    static const struct {
        const char *what, *after, *from, *to;
        size_t keep; /* bytes of the file, 0: all */
        emo_status status;
    } cases[] = {
        {"an empty file", "", "", "", 1, EMO_E_FORMAT},
        {"a header cut off", "", "", "", 200, EMO_E_FORMAT},
        {"data cut off", "", "", "", 16000, EMO_E_FORMAT},
        {"no JSON", "", "{\"__m", "[\"__m", 0, EMO_E_FORMAT},
        {"a tensor by another name", "", "model.norm.weight", "model.n0rm.weight", 0, EMO_E_NOT_FOUND},
        {"an element type weights do not have", "lm_head.weight", "\"BF16\"", "\"I16\" ", 0, EMO_E_UNSUPPORTED},
        {"another shape", "lm_head.weight", "[64, 16]", "[16, 64]", 0, EMO_E_MISMATCH},
        {"a shape that is not its bytes", "lm_head.weight", "[64, 16]", "[64, 17]", 0, EMO_E_FORMAT},
        {"offsets that run backwards", "lm_head.weight", "[0,", "[9,", 0, EMO_E_FORMAT},
    };
    static const char *const names[] = {"broken/model.safetensors"};
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(3);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        save(model, "broken", EMO_DTYPE_BF16, 0);
        size_t size = 0;
        unsigned char *data = test_read(test_path(names[0]), &size);
        if (cases[c].from[0] != '\0')
            patch(data, size, cases[c].after, cases[c].from, cases[c].to);
        assert_true(cases[c].keep <= size);
        (void)test_write(names[0], data, cases[c].keep > 0 ? cases[c].keep - (cases[c].keep == 1) : size);
        free(data);
        files f = read_files(names, 1);
        for (int way = 0; way < WAYS; way++) {
            emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
            emo_model *loaded = NULL;
            emo_status status = load(rt, way, "broken", config, &f, &options, &loaded, &err);
            if (status != cases[c].status || loaded != NULL || err.message[0] == '\0')
                fail_msg("%s, %s: %s (%s), want %s", cases[c].what, way_names[way], emo_status_name(status),
                         err.message, emo_status_name(cases[c].status));
        }
        free_files(&f);
    }
    emo_model_release(model);
}

static void every_read_of_the_host_may_fail(void **state) {
    (void)state;
    static const char *const names[] = {"reads/model.safetensors"};
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(3);
    save(model, "reads", EMO_DTYPE_BF16, 0);
    emo_model_release(model);
    meter m = METER_INIT;
    emo_runtime *own = meter_runtime(&m, 1);
    long before = atomic_load(&m.live);
    files f = read_files(names, 1);
    emo_status status = EMO_E_NOT_FOUND;
    long n = 0;
    for (; status != EMO_OK; n++) {
        emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
        emo_model *loaded = NULL;
        f.host[0].reads = 0;
        f.host[0].fail_at = n;
        status = load(own, HOST, NULL, config, &f, &options, &loaded, &err);
        if (status != EMO_OK) { /* the host's own code, and where it came from */
            assert_int_equal(status, EMO_E_NOT_FOUND);
            assert_non_null(strstr(err.message, "host"));
            assert_null(loaded);
        }
        emo_model_release(loaded);
        assert_int_equal(f.host[0].released, n + 1);
        assert_int_equal(atomic_load(&m.live), before);
        assert_true(n < 500);
    }
    assert_true(n > 30);
    free_files(&f);
    emo_runtime_release(own);
    meter_check(&m, "failing reads");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_gives_the_same_bits),
        cmocka_unit_test(a_pruned_model_keeps_its_ids_through_sources),
        cmocka_unit_test(every_way_refuses_alike),
        cmocka_unit_test(every_read_of_the_host_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
