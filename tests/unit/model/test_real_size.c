/* SPDX-License-Identifier: Apache-2.0 */
/* The released shape (27 GB in shards of 5 GB): what a load subset reads, allocates and keeps resident. No test data of
 * that size exists anywhere: host sources make up their headers and count what is read, files are holes. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, MAP_NORESERVE, usleep */
#include <emo/emo.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "support/folder.h"
#include "support/support.h"

enum { HIDDEN = 2048, INNER = 1024, EXPERTS = 128, VOCAB = 100352, LAYERS = 16, ITEM = 2 /* bf16 */ };
#define SHARD_BYTES UINT64_C(5000000000)
#define MOST_SHARDS 8
#define LARGE ((size_t)1 << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* their shadow memory counts as resident, and they are slow */
#else
#define SANITIZED 0
#endif

/* ---- A model that is made of names and sizes ---- */

typedef struct tensor {
    char name[80];
    int64_t rows, cols; /* rows 0: a vector */
    int32_t layer, expert;
    size_t shard;
    uint64_t begin, bytes; /* behind the shard's header */
} tensor;

typedef struct shard {
    char *header; /* 8 bytes of length, then JSON */
    size_t header_size;
    uint64_t data;
} shard;

typedef struct paper_model {
    int32_t layers, vocab;
    tensor *tensors;
    size_t count;
    shard shards[MOST_SHARDS];
    size_t n_shards;
    uint64_t total;
} paper_model;

static void add(paper_model *m, int64_t rows, int64_t cols, int32_t layer, int32_t expert, const char *name) {
    tensor *t = &m->tensors[m->count++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->cols = cols;
    t->layer = layer;
    t->expert = expert;
    t->bytes = (uint64_t)(rows > 0 ? rows : 1) * (uint64_t)cols * ITEM;
    shard *s = &m->shards[m->n_shards - 1];
    if (s->data > 0 && s->data + t->bytes > SHARD_BYTES) {
        assert_true(m->n_shards < MOST_SHARDS);
        s = &m->shards[m->n_shards++];
    }
    t->shard = m->n_shards - 1;
    t->begin = s->data;
    s->data += t->bytes;
    m->total += t->bytes;
}

static void add_layer(paper_model *m, int32_t l) {
    static const char *const attention[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    static const char *const expert[] = {"gate_proj", "up_proj", "down_proj"};
    static const char *const norms[] = {"pre_attention_layernorm", "pre_feedforward_layernorm"};
    char name[80];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "model.layers.%d.self_attn.%s.weight", (int)l, attention[i]);
        add(m, HIDDEN, HIDDEN, l, -1, name);
    }
    snprintf(name, sizeof name, "model.layers.%d.mlp.gate.weight", (int)l);
    add(m, EXPERTS, HIDDEN, l, -1, name);
    for (int e = 0; e < EXPERTS; e++) {
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s.weight", (int)l, e, expert[i]);
            add(m, i < 2 ? INNER : HIDDEN, i < 2 ? HIDDEN : INNER, l, e, name);
        }
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", (int)l, norms[i]);
        add(m, 0, HIDDEN, l, -1, name);
    }
}

static void write_header(paper_model *m, size_t number) {
    shard *s = &m->shards[number];
    size_t capacity = 256 + m->count * 192;
    s->header = malloc(capacity);
    assert_non_null(s->header);
    size_t at = 8 + (size_t)sprintf(s->header + 8, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < m->count; i++) {
        const tensor *t = &m->tensors[i];
        char shape[48];
        if (t->shard != number)
            continue;
        if (t->rows > 0)
            snprintf(shape, sizeof shape, "%lld,%lld", (long long)t->rows, (long long)t->cols);
        else
            snprintf(shape, sizeof shape, "%lld", (long long)t->cols);
        at += (size_t)snprintf(s->header + at, capacity - at,
                               ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}", t->name,
                               shape, (unsigned long long)t->begin, (unsigned long long)(t->begin + t->bytes));
    }
    s->header[at++] = '}';
    while (at % 8 != 0)
        s->header[at++] = ' ';
    uint64_t length = at - 8;
    memcpy(s->header, &length, 8);
    s->header_size = at;
}

static paper_model paper(int32_t layers, int32_t vocab) {
    paper_model m;
    memset(&m, 0, sizeof m);
    m.layers = layers;
    m.vocab = vocab;
    m.n_shards = 1;
    m.tensors = calloc((size_t)layers * (EXPERTS * 3 + 7) + 3, sizeof *m.tensors);
    assert_non_null(m.tensors);
    add(&m, vocab, HIDDEN, -1, -1, "model.embed_tokens.weight");
    for (int32_t l = 0; l < layers; l++)
        add_layer(&m, l);
    add(&m, 0, HIDDEN, -1, -1, "model.norm.weight");
    add(&m, vocab, HIDDEN, -1, -1, "lm_head.weight");
    for (size_t i = 0; i < m.n_shards; i++)
        write_header(&m, i);
    return m;
}

static void paper_free(paper_model *m) {
    for (size_t i = 0; i < m->n_shards; i++)
        free(m->shards[i].header);
    free(m->tensors);
}

static void config_text(const paper_model *m, char buffer[768]) {
    snprintf(buffer, 768,
             "{\"architectures\":[\"EmoForCausalLM\"],\"model_type\":\"emo\",\"vocab_size\":%d,\"hidden_size\":%d,"
             "\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":16,\"num_key_value_heads\":16,"
             "\"max_position_embeddings\":4096,\"num_experts\":%d,\"num_shared_experts\":1,\"num_experts_per_tok\":8,"
             "\"eos_token_id\":1,\"pad_token_id\":0,\"torch_dtype\":\"bfloat16\"}",
             (int)m->vocab, HIDDEN, INNER, (int)m->layers, EXPERTS);
}

/* Every `one_in`-th expert, the shared one (the last) among them. */
static int kept(int32_t expert, int32_t one_in) { return expert < 0 || expert % one_in == one_in - 1; }

static uint64_t kept_bytes(const paper_model *m, int32_t one_in) {
    uint64_t sum = 0;
    for (size_t i = 0; i < m->count; i++)
        sum += kept(m->tensors[i].expert, one_in) ? m->tensors[i].bytes : 0;
    return sum;
}

static emo_mask *mask_of(emo_runtime *rt, int32_t layers, int32_t one_in) {
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = NULL;
    int32_t experts[LAYERS], shared[LAYERS];
    for (int32_t l = 0; l < layers; l++) {
        experts[l] = EXPERTS;
        shared[l] = 1;
    }
    EXPECT_OK(emo_mask_create(rt, layers, experts, shared, 0, &mask, &err));
    for (int32_t l = 0; l < layers; l++) {
        for (int32_t e = 0; e < EXPERTS; e++)
            EXPECT_OK(emo_mask_set(mask, l, e, kept(e, one_in), &err));
    }
    return mask;
}

/* ---- Host sources that count ---- */

typedef struct host_file {
    const paper_model *model;
    size_t shard;
    int32_t one_in;
    uint64_t header_bytes, data_bytes; /* read */
    size_t reads;
    size_t astray; /* reads that touch a byte of no wanted tensor */
} host_file;

static emo_status host_size(void *ctx, uint64_t *size) {
    const host_file *f = ctx;
    const shard *s = &f->model->shards[f->shard];
    *size = s->header_size + s->data;
    return EMO_OK;
}

/* Data are left as they are in the caller's memory: nothing of it is touched, so that no gigabytes are needed. */
static emo_status host_read(void *ctx, uint64_t offset, void *data, size_t size) {
    host_file *f = ctx;
    const paper_model *m = f->model;
    const shard *s = &m->shards[f->shard];
    f->reads++;
    if (offset + size <= s->header_size) {
        memcpy(data, s->header + offset, size);
        f->header_bytes += size;
        return EMO_OK;
    }
    f->data_bytes += size;
    uint64_t begin = offset - s->header_size; /* a read across the border gives a huge number, which is astray */
    for (size_t i = 0; i < m->count; i++) {
        const tensor *t = &m->tensors[i];
        if (t->shard == f->shard && begin >= t->begin && begin + size <= t->begin + t->bytes &&
            kept(t->expert, f->one_in))
            return EMO_OK;
    }
    f->astray++;
    return EMO_OK;
}

/* Large blocks as address space alone; what lies in them is never written here. */
static atomic_llong live_bytes, peak_bytes;

static void *paper_alloc(void *ctx, size_t size, size_t alignment) {
    (void)ctx;
    void *ptr = NULL;
    if (size < LARGE)
        return posix_memalign(&ptr, alignment, size) == 0 ? ptr : NULL;
    ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ptr == MAP_FAILED)
        return NULL;
    long long now = atomic_fetch_add(&live_bytes, (long long)size) + (long long)size;
    if (now > atomic_load(&peak_bytes))
        atomic_store(&peak_bytes, now);
    return ptr;
}

static void paper_release(void *ctx, void *ptr, size_t size, size_t alignment) {
    (void)ctx;
    (void)alignment;
    if (size < LARGE) {
        free(ptr);
        return;
    }
    atomic_fetch_sub(&live_bytes, (long long)size);
    (void)munmap(ptr, size);
}

static double cpu_seconds(void) { return (double)clock() / (double)CLOCKS_PER_SEC; }

/* CPU time, so that a busy machine does not matter. Not held under sanitizers. */
static void expect_below(const char *what, double seconds, double limit) {
    printf("%s: %.3f s\n", what, seconds);
    if (!SANITIZED && seconds >= limit)
        fail_msg("%s took %.2f s, limit %.2f", what, seconds, limit);
}

static void a_subset_of_the_released_shape_reads_its_experts_alone(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = 1;
    options.allocator.alloc = paper_alloc;
    options.allocator.free = paper_release;
    emo_runtime *rt = NULL;
    EXPECT_OK(emo_runtime_create(&options, &rt, &err));
    paper_model m = paper(LAYERS, VOCAB);
    assert_int_equal(m.n_shards, 6);
    assert_true(m.total > UINT64_C(27000000000) && m.total < UINT64_C(27200000000));
    static const int32_t fractions[] = {4, 8};
    for (size_t i = 0; i < 2; i++) {
        int32_t one_in = fractions[i];
        host_file files[MOST_SHARDS];
        emo_source *sources[MOST_SHARDS] = {NULL};
        emo_source_vtable vtable = EMO_SOURCE_VTABLE_INIT;
        vtable.size = host_size;
        vtable.read_at = host_read;
        memset(files, 0, sizeof files);
        for (size_t s = 0; s < m.n_shards; s++) {
            files[s].model = &m;
            files[s].shard = s;
            files[s].one_in = one_in;
            EXPECT_OK(emo_source_create(rt, &vtable, &files[s], &sources[s], &err));
        }
        emo_mask *mask = mask_of(rt, LAYERS, one_in);
        emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT;
        load.subset = mask;
        char config[768];
        config_text(&m, config);
        long long before = atomic_load(&live_bytes);
        atomic_store(&peak_bytes, before);
        emo_model *model = NULL;
        double start = cpu_seconds();
        EXPECT_OK(emo_model_load_sources(rt, config, strlen(config), sources, m.n_shards, &load, &model, &err));
        /* Most of the time goes into this test's own look-up of what each read belongs to. */
        expect_below(one_in == 4 ? "a quarter from the host" : "an eighth from the host", cpu_seconds() - start, 1.0);

        uint64_t want = kept_bytes(&m, one_in), data = 0;
        for (size_t s = 0; s < m.n_shards; s++) {
            assert_int_equal(files[s].astray, 0);
            assert_true(files[s].header_bytes >= m.shards[s].header_size &&
                        files[s].header_bytes <= m.shards[s].header_size + 16);
            data += files[s].data_bytes;
        }
        assert_int_equal(data, want);
        /* 64 bytes of alignment a tensor and the tables besides; never a second copy, not even for a moment */
        long long grown = atomic_load(&peak_bytes) - before;
        if (grown < (long long)want || (double)grown > 1.03 * (double)want)
            fail_msg("%lld bytes in large blocks; the kept weights are %llu", grown, (unsigned long long)want);
        emo_model_info info = EMO_MODEL_INFO_INIT;
        EXPECT_OK(emo_model_get_info(model, &info, &err));
        assert_int_equal(info.parameters * ITEM, m.total);
        assert_int_equal(info.loaded * ITEM, want);
        printf("1 in %d experts: %.2f of %.2f GB read\n", (int)one_in, (double)data / 1e9, (double)m.total / 1e9);
        emo_model_release(model);
        emo_mask_release(mask);
        for (size_t s = 0; s < m.n_shards; s++)
            emo_source_release(sources[s]);
    }
    paper_free(&m);
    emo_runtime_release(rt);
    assert_int_equal(atomic_load(&live_bytes), 0);
}

/* ---- Folders of holes ---- */

static void shard_name(const paper_model *m, size_t s, char name[64]) {
    snprintf(name, 64, "model-%05zu-of-%05zu.safetensors", s + 1, m->n_shards);
}

/* 0 when the file system cannot hold files of such a size. */
static int write_holes(const paper_model *m) {
    char text[768], name[64];
    config_text(m, text);
    (void)test_write("config.json", text, strlen(text));
    FILE *index = fopen(test_path("model.safetensors.index.json"), "w");
    assert_non_null(index);
    fprintf(index, "{\"metadata\":{\"total_size\":%llu},\"weight_map\":{", (unsigned long long)m->total);
    for (size_t i = 0; i < m->count; i++) {
        shard_name(m, m->tensors[i].shard, name);
        fprintf(index, "%s\"%s\":\"%s\"", i > 0 ? "," : "", m->tensors[i].name, name);
    }
    fprintf(index, "}}");
    assert_int_equal(fclose(index), 0);
    for (size_t s = 0; s < m->n_shards; s++) {
        shard_name(m, s, name);
        int fd = open(test_write(name, m->shards[s].header, m->shards[s].header_size), O_WRONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        int failed = ftruncate(fd, (off_t)(m->shards[s].header_size + m->shards[s].data));
        close(fd);
        if (failed != 0)
            return 0;
    }
    return 1;
}

static void the_released_shape_opens_at_once(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    paper_model m = paper(LAYERS, VOCAB);
    (void)test_folder();
    if (!write_holes(&m)) {
        printf("this file system holds no files of 5 GB\n");
        test_folder_remove();
        paper_free(&m);
        emo_runtime_release(rt);
        skip();
    }
    for (int32_t one_in = 1; one_in <= 4; one_in += 3) {
        emo_mask *mask = one_in > 1 ? mask_of(rt, LAYERS, one_in) : NULL;
        emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT;
        load.subset = mask;
        emo_model *model = NULL;
        double start = cpu_seconds();
        EXPECT_OK(emo_model_load_path(rt, test_path("."), &load, &model, &err));
        expect_below(one_in == 1 ? "opening all of it" : "opening a quarter", cpu_seconds() - start, 1.0);
        emo_model_info info = EMO_MODEL_INFO_INIT;
        EXPECT_OK(emo_model_get_info(model, &info, &err));
        assert_int_equal(info.loaded * ITEM, kept_bytes(&m, one_in));
        assert_int_equal(info.parameters, INT64_C(13568641024));
        assert_int_equal(info.active - (int64_t)VOCAB * HIDDEN * 2, INT64_C(1078003712));
        emo_model_release(model);
        emo_mask_release(mask);
    }
    test_folder_remove();
    paper_free(&m);
    emo_runtime_release(rt);
}

/* "key:   N kB" of a file in /proc, in bytes; 0 when it is not there. */
static uint64_t proc_bytes(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    char line[256];
    uint64_t found = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0)
            found = (uint64_t)strtoull(line + strlen(key), NULL, 10) * 1024;
    }
    if (file != NULL)
        fclose(file);
    return found;
}

/* Resident memory of this process without file pages: those are clean and the system's to drop. */
static uint64_t resident(void) { return proc_bytes("/proc/self/status", "RssAnon:"); }

/* One layer and a small vocabulary, read into memory: 0.3 and 0.5 GB for a moment, for the memory of a test machine.
 * What is not weights weighs least in the whole model, so this is the harder case. EMO_TEST_LAYERS=16 takes the whole
 * vocabulary and so many layers (7.8 GB). */
static void resident_memory_is_the_kept_weights(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    const char *wish = getenv("EMO_TEST_LAYERS");
    int32_t layers = wish != NULL ? (int32_t)strtol(wish, NULL, 10) : 1;
    assert_true(layers >= 1 && layers <= LAYERS);
    paper_model m = paper(layers, wish != NULL ? VOCAB : 8192);
    uint64_t free_bytes = proc_bytes("/proc/meminfo", "MemAvailable:");
    if (SANITIZED || resident() == 0 || free_bytes < kept_bytes(&m, 4) + kept_bytes(&m, 4) / 2) {
        printf("resident memory cannot be measured here: sanitizers, no RssAnon, or too little free memory\n");
        paper_free(&m);
        skip();
    }
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    (void)test_folder();
    assert_true(write_holes(&m));
    for (int32_t one_in = 4; one_in <= 8; one_in += 4) {
        emo_mask *mask = mask_of(rt, layers, one_in);
        double want = (double)kept_bytes(&m, one_in);
        for (int32_t no_map = 0; no_map < 2; no_map++) {
            emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT;
            load.subset = mask;
            load.no_map = no_map;
            uint64_t before = resident();
            emo_model *model = NULL;
            EXPECT_OK(emo_model_load_path(rt, test_path("."), &load, &model, &err));
            double grown = (double)resident() - (double)before;
            printf("1 in %d experts of %d layers, %s: %.1f MB resident, %.1f MB of weights (%+.2f %%)\n", (int)one_in,
                   (int)layers, no_map ? "read" : "mapped", grown / 1e6, want / 1e6, 100.0 * (grown / want - 1.0));
            /* PERF: within 3 % of dense weights and kept experts; mapped ones are file pages, which do not count */
            if (grown > 1.03 * want || (no_map && grown < 0.97 * want) || (!no_map && grown > 0.03 * want))
                fail_msg("%.0f bytes resident for %.0f bytes of weights", grown, want);
            emo_model_release(model);
        }
        emo_mask_release(mask);
    }
    test_folder_remove();
    paper_free(&m);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_subset_of_the_released_shape_reads_its_experts_alone),
        cmocka_unit_test(the_released_shape_opens_at_once),
        cmocka_unit_test(resident_memory_is_the_kept_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
