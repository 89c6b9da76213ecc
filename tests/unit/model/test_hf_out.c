/* SPDX-License-Identifier: Apache-2.0 */
/* Folders for other programs: what came in goes out again, tensor by tensor and key by key. */
#include <emo/emo.h>

#include "io/json.h"
#include "io/safetensors.h"
#include "model/files.h"
#include "support/folder.h"
#include "support/support.h"
#include "tensor/dtype.h"

#define SHAPE                                                                                                          \
    "\"vocab_size\":260,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":2," \
    "\"num_experts\":5,\"num_shared_experts\":1,\"num_experts_per_tok\":3,\"eos_token_id\":3,\"pad_token_id\":3"
static const char plain[] = "{\"model_type\":\"emo\"," SHAPE "}";
static const char odd[] =
    "{\"model_type\":\"emo\"," SHAPE ",\"auto_map\":{\"AutoConfig\":\"configuration_emo.EmoConfig\"},"
    "\"transformers_version\":\"4.57.1\",\"_name_or_path\":\"a \\\"path\\\"\",\"nothing\":null,\"yes\":true,"
    "\"list\":[1,[2.5,\"x\"],{}],\"use_cache\":false,\"num\\u00e9ro\":-7}";

TEST_RUNTIME_AND_FOLDER(2, EMO_ISA_AUTO)

static emo_model *make(const char *config) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), NULL, &model, &err));
    return model;
}

static emo_model *load(const char *folder) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_load_path(rt, test_path(folder), NULL, &model, &err));
    return model;
}

static void save(const emo_model *model, const char *folder, emo_dtype dtype, uint64_t shard) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_save_options options = EMO_MODEL_SAVE_OPTIONS_INIT;
    options.dtype = dtype;
    options.shard_bytes = shard;
    EXPECT_OK(emo_model_save(model, test_path(folder), &options, &err));
}

static int exists(const char *name) {
    FILE *file = fopen(test_path(name), "rb");
    if (file != NULL)
        fclose(file);
    return file != NULL;
}

static emo__json *json_of(const char *name) {
    emo_error err = EMO_ERROR_INIT;
    emo__json *root = NULL;
    EXPECT_OK(emo__json_load(&rt->mem, test_path(name), 1 << 20, &root, &err));
    return root;
}

static void expect_same_file(const char *a, const char *b) {
    size_t n = 0, m = 0;
    unsigned char *x = test_read(test_path(a), &n);
    unsigned char *y = test_read(test_path(b), &m);
    if (n != m || memcmp(x, y, n) != 0)
        fail_msg("%s and %s differ", a, b);
    free(x);
    free(y);
}

/* ---- Tensors ---- */

typedef struct extra {
    const char *name, *dtype;
    int32_t n_dims;
    int64_t shape[3];
    uint64_t bytes;
} extra;
/* One sorts before all others, one behind; one has a type of which nothing but the name is known, one has no elements.
 */
static const extra extras[] = {
    {"a.first", "F32", 1, {3}, 12},
    {"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 1, {4}, 16},
    {"model.layers.1.mlp.experts.2.weight_scale", "F8_E8M0", 2, {2, 8}, 16},
    {"model.none", "BF16", 2, {0, 4}, 0},
    {"step", "I64", 0, {0}, 8},
};

/* Copies a folder's tensors with the extras among them, in shards. */
static void add_extras(const char *from, const char *to, uint64_t shard) {
    emo_error err = EMO_ERROR_INIT;
    emo__st_set *set = NULL;
    emo__st_writer *w = NULL;
    size_t n_extras = sizeof extras / sizeof extras[0];
    char bytes[16];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 37 + 1);
    EXPECT_OK(emo__st_set_open(rt, test_path(from), &set, &err));
    EXPECT_OK(emo__st_writer_create(rt, test_path(to), shard, &w, &err));
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < n_extras; i++) {
            emo__st_entry e;
            memset(&e, 0, sizeof e);
            e.name = extras[i].name;
            strcpy(e.dtype_name, extras[i].dtype);
            e.n_dims = extras[i].n_dims;
            memcpy(e.shape, extras[i].shape, sizeof extras[i].shape);
            e.bytes = extras[i].bytes;
            if (round == 0)
                EXPECT_OK(emo__st_writer_add_like(w, &e, &err));
            else
                EXPECT_OK(emo__st_writer_write(w, e.name, bytes, (size_t)e.bytes, &err));
        }
        for (size_t i = 0; i < emo__st_set_count(set); i++) {
            const emo__st *st = NULL;
            const emo__st_entry *e = NULL;
            EXPECT_OK(emo__st_set_find(set, emo__st_set_name(set, i), &st, &e, &err));
            if (round == 0)
                EXPECT_OK(emo__st_writer_add_like(w, e, &err));
            else
                EXPECT_OK(emo__st_writer_write(w, e->name, emo__st_data(st, e), (size_t)e->bytes, &err));
        }
        if (round == 0)
            EXPECT_OK(emo__st_writer_begin(w, &err));
    }
    EXPECT_OK(emo__st_writer_finish(w, &err));
    emo__st_writer_destroy(w);
    emo__st_set_close(set);
}

/* The same names with the same types, shapes and bytes. */
static void expect_same_tensors(const char *a, const char *b) {
    emo_error err = EMO_ERROR_INIT;
    emo__st_set *x = NULL, *y = NULL;
    EXPECT_OK(emo__st_set_open(rt, test_path(a), &x, &err));
    EXPECT_OK(emo__st_set_open(rt, test_path(b), &y, &err));
    assert_int_equal(emo__st_set_count(x), emo__st_set_count(y));
    for (size_t i = 0; i < emo__st_set_count(x); i++) {
        const emo__st *s = NULL, *t = NULL;
        const emo__st_entry *e = NULL, *f = NULL;
        EXPECT_OK(emo__st_set_find(x, emo__st_set_name(x, i), &s, &e, &err));
        EXPECT_OK(emo__st_set_find(y, emo__st_set_name(x, i), &t, &f, &err));
        assert_string_equal(e->dtype_name, f->dtype_name);
        EXPECT_OK(emo__st_check_shape(e, f->shape, f->n_dims, &err));
        assert_int_equal(e->bytes, f->bytes);
        if (e->bytes > 0 && memcmp(emo__st_data(s, e), emo__st_data(t, f), (size_t)e->bytes) != 0)
            fail_msg("tensor %s has other bytes", e->name);
    }
    emo__st_set_close(x);
    emo__st_set_close(y);
}

static void tensors_come_out_as_they_went_in(void **state) {
    (void)state;
    static const emo_dtype dtypes[] = {EMO_DTYPE_F32, EMO_DTYPE_BF16, EMO_DTYPE_F16};
    emo_model *model = make(plain);
    for (size_t i = 0; i < 3; i++) {
        save(model, "in", dtypes[i], 0);
        add_extras("in", "in-odd", 4096);
        size_t n = 0;
        unsigned char *config = test_read(test_path("in/config.json"), &n);
        (void)test_write("in-odd/config.json", config, n);
        free(config);
        emo_model *a = load("in-odd");
        save(a, "one", -1, 0);
        save(a, "shards", -1, 8192);
        assert_true(exists("one/model.safetensors") && !exists("one/model.safetensors.index.json"));
        assert_true(!exists("shards/model.safetensors") && exists("shards/model.safetensors.index.json"));
        expect_same_tensors("in-odd", "one");
        expect_same_tensors("in-odd", "shards");
        emo_model *b = load("shards");
        save(b, "again", -1, 0);
        expect_same_file("one/model.safetensors", "again/model.safetensors");
        emo_model_release(b);
        emo_model_release(a);
    }
    /* a pruned model has files of its own and takes nothing along */
    emo_error err = EMO_ERROR_INIT;
    emo_model *a = load("in-odd"), *small = NULL;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(a, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 1, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 1, 0, 0, &err));
    EXPECT_OK(emo_model_prune(a, mask, NULL, &small, &err));
    save(small, "small", -1, 0);
    emo__st_set *set = NULL;
    EXPECT_OK(emo__st_set_open(rt, test_path("small"), &set, &err));
    assert_int_equal(emo__st_set_count(set), small->n_params);
    emo__st_set_close(set);
    emo_mask_release(mask);
    emo_model_release(small);
    emo_model_release(a);
    emo_model_release(model);
}

static void the_index_says_where_everything_is(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(plain);
    save(model, "bf16", EMO_DTYPE_BF16, 4096);
    emo__json *index = json_of("bf16/model.safetensors.index.json");
    const emo__json *map = emo__json_get(index, "weight_map");
    int64_t total = 0, sum = 0;
    assert_true(emo__json_i64(emo__json_get(emo__json_get(index, "metadata"), "total_size"), &total));
    assert_int_equal(emo__json_size(map), model->n_params);
    for (size_t i = 0; i < model->n_params; i++) {
        char name[EMO__NAME_MAX], path[256];
        emo__param_name(&model->params[i], name);
        const char *file = emo__json_string(emo__json_get(map, name), NULL);
        assert_non_null(file);
        snprintf(path, sizeof path, "bf16/%s", file);
        emo_source *source = NULL;
        emo__st *st = NULL;
        EXPECT_OK(emo_source_open_path(rt, test_path(path), &source, &err));
        EXPECT_OK(emo__st_open(rt, source, &st, &err));
        const emo__st_entry *e = emo__st_find(st, name);
        assert_non_null(e);
        assert_string_equal(e->dtype_name, "BF16");
        assert_string_equal(emo__st_metadata(st, "format"), "pt"); /* transformers insists on it */
        uint64_t held = 0;
        for (size_t t = 0; t < emo__st_count(st); t++)
            held += emo__st_at(st, t)->bytes;
        assert_true(held <= 4096 || emo__st_count(st) == 1);
        sum += (int64_t)e->bytes;
        emo__st_close(st);
        emo_source_release(source);
    }
    assert_int_equal(sum, total);
    emo__json_free(index);
    emo_model_release(model);
}

/* ---- Keys ---- */

static void expect_key(const emo__json *a, const emo__json *b, const char *key) {
    emo_error err = EMO_ERROR_INIT;
    emo__buf x, y;
    emo__buf_init(&x, &rt->mem);
    emo__buf_init(&y, &rt->mem);
    assert_true(emo__json_has(a, key) && emo__json_has(b, key));
    for (int i = 0; i < 2; i++) {
        emo__jw w;
        emo__jw_begin(&w, i == 0 ? &x : &y, 0, &err);
        if (emo__json_get(i == 0 ? a : b, key) != NULL)
            emo__jw_node(&w, NULL, emo__json_get(i == 0 ? a : b, key));
        EXPECT_OK(emo__jw_end(&w));
    }
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    emo__buf_free(&x);
    emo__buf_free(&y);
}

static void unknown_keys_survive(void **state) {
    (void)state;
    static const char *const keys[] = {"auto_map", "transformers_version", "_name_or_path", "nothing", "yes",
                                       "list",     "num\xc3\xa9ro"};
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(odd);
    save(model, "odd", EMO_DTYPE_F32, 0);
    emo__json *in = NULL;
    EXPECT_OK(emo__json_parse(&rt->mem, odd, strlen(odd), "in", &in, &err));
    emo_model *back = load("odd");
    save(back, "odd2", EMO_DTYPE_F32, 0);
    expect_same_file("odd/config.json", "odd2/config.json"); /* nothing is added or moved a second time */
    emo_mask *mask = NULL;
    emo_model *small = NULL, *merged = NULL;
    EXPECT_OK(emo_model_mask(back, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 1, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 1, 1, 0, &err));
    EXPECT_OK(emo_model_prune(back, mask, NULL, &small, &err));
    save(small, "odd-small", -1, 0);
    EXPECT_OK(emo_model_merge(back, small, NULL, &merged, &err));
    save(merged, "odd-merged", EMO_DTYPE_F16, 0);
    static const char *const files[] = {"odd/config.json", "odd-small/config.json", "odd-merged/config.json"};
    for (size_t f = 0; f < 3; f++) {
        emo__json *out = json_of(files[f]);
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
            expect_key(in, out, keys[k]);
        int64_t experts = 0;
        assert_true(emo__json_i64(emo__json_get(out, "num_experts"), &experts));
        assert_int_equal(experts, f == 1 ? 4 : 5);
        assert_string_equal(emo__json_string(emo__json_get(out, "dtype"), NULL), f == 2 ? "float16" : "float32");
        assert_string_equal(emo__json_string(emo__json_at(emo__json_get(out, "architectures"), 0), NULL),
                            "EmoForCausalLM");
        emo__json_free(out);
    }
    emo__json_free(in);
    emo_mask_release(mask);
    emo_model_release(merged);
    emo_model_release(small);
    emo_model_release(back);
    emo_model_release(model);
}

static void older_and_dense_folders_are_known(void **state) {
    (void)state;
    static const char older[] = "{\"model_type\":\"flex_olmo_noqknorm_prenorm\",\"architectures\":"
                                "[\"FlexOlmoNoQKNormPrenormForCausalLM\"],\"auto_map\":{\"AutoConfig\":\"old.Config\"},"
                                "\"kept\":1,\"max_position_embeddings\":-1," SHAPE "}";
    static const char dense[] = "{\"model_type\":\"olmo2_noqknorm_prenorm\",\"hidden_size\":16,"
                                "\"intermediate_size\":24,\"num_hidden_layers\":1,\"num_attention_heads\":2}";
    static const char other[] = "{\"model_type\":\"olmo2\",\"hidden_size\":16,\"num_attention_heads\":2}";
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(older);
    assert_int_equal(model->config.max_positions, 4096);
    save(model, "older", -1, 0);
    emo__json *out = json_of("older/config.json");
    assert_string_equal(emo__json_string(emo__json_get(out, "model_type"), NULL), "emo");
    assert_false(emo__json_has(out, "auto_map")); /* it names classes of the older name */
    assert_true(emo__json_has(out, "kept"));
    emo__json_free(out);
    emo_model_release(model);

    model = make(dense); /* the defaults are those of its own configuration class */
    assert_int_equal(model->config.vocab, 50304);
    assert_int_equal(model->config.eos, 50279);
    assert_int_equal(model->config.pad, 1);
    assert_int_equal(model->config.max_positions, 2048);
    assert_true(model->config.eps == 1e-5f && model->config.rope_theta == 10000.0);
    assert_int_equal(emo_model_experts(model, 0), 0);
    save(model, "dense", -1, 0);
    emo_model *back = load("dense");
    assert_true(back->config.dense_model && back->config.rope_theta == 10000.0);
    assert_int_equal(back->n_params, model->n_params);
    assert_non_null(emo__model_find(back, "model.layers.0.mlp.up_proj.weight"));
    emo_model_release(back);
    emo_model_release(model);
    EXPECT_STATUS(emo_model_create_json(rt, other, strlen(other), NULL, &model, &err), EMO_E_UNSUPPORTED, "olmo2");
}

/* torch.nn.Embedding refuses a padding index outside the vocabulary: the folder could not be loaded there. */
static void a_padding_id_outside_the_vocabulary_is_none(void **state) {
    (void)state;
    static const struct {
        const char *more;
        int64_t pad;
    } cases[] = {
        {"", -1}, {",\"pad_token_id\":260", -1}, {",\"pad_token_id\":259", 259}, {",\"pad_token_id\":null", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char config[512];
        snprintf(config, sizeof config,
                 "{\"vocab_size\":260,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":1,"
                 "\"num_attention_heads\":2,\"num_experts\":5,\"num_experts_per_tok\":3,\"eos_token_id\":3%s}",
                 cases[i].more);
        emo_model *model = make(config);
        save(model, "pad", -1, 0);
        emo__json *root = json_of("pad/config.json");
        int64_t pad = -1;
        assert_true(emo__json_has(root, "pad_token_id")); /* absent, it would be the reference's default */
        assert_int_equal(emo__json_i64(emo__json_get(root, "pad_token_id"), &pad), cases[i].pad >= 0);
        assert_int_equal(pad, cases[i].pad);
        emo__json_free(root);
        root = json_of("pad/generation_config.json");
        assert_int_equal(emo__json_has(root, "pad_token_id"), cases[i].pad >= 0);
        emo__json_free(root);
        emo_model_release(model);
    }
}

/* ---- The tokenizer's files ---- */

static void the_tokenizers_files_are_kept_or_made(void **state) {
    (void)state;
    static const char settings[] = "{\"tokenizer_class\": \"GPT2Tokenizer\",   \"mine\": 1}\n";
    static const char special[] = "{\"eos_token\": {\"content\": \"x\"}}";
    static const char generation[] = "{\"do_sample\": true,\n\"eos_token_id\": 3}";
    static const char eos_is_256[] = "{\"model_type\":\"emo\",\"vocab_size\":260,\"hidden_size\":16,"
                                     "\"intermediate_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
                                     "\"num_experts\":5,\"num_experts_per_tok\":3,\"eos_token_id\":256,"
                                     "\"max_position_embeddings\":99,\"pad_token_id\":256}";
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(eos_is_256);
    emo_tokenizer *tok = NULL;
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &tok, &err));
    EXPECT_OK(emo_model_set_tokenizer(model, tok, &err));
    save(model, "made", -1, 0);
    emo__json *made = json_of("made/tokenizer_config.json");
    int64_t longest = 0;
    assert_string_equal(emo__json_string(emo__json_get(made, "tokenizer_class"), NULL), "PreTrainedTokenizerFast");
    assert_true(emo__json_i64(emo__json_get(made, "model_max_length"), &longest));
    assert_int_equal(longest, 99);
    const emo__json *inputs = emo__json_get(made, "model_input_names"); /* no token_type_ids */
    assert_int_equal(emo__json_size(inputs), 2);
    assert_string_equal(emo__json_string(emo__json_at(inputs, 0), NULL), "input_ids");
    assert_string_equal(emo__json_string(emo__json_at(inputs, 1), NULL), "attention_mask");
    const char *eos = emo__json_string(emo__json_get(made, "eos_token"), NULL);
    assert_non_null(eos);
    char word[64];
    snprintf(word, sizeof word, "%s", eos);
    emo__json *map = json_of("made/special_tokens_map.json");
    assert_string_equal(emo__json_string(emo__json_get(map, "eos_token"), NULL), eos);
    emo__json_free(map);
    emo__json_free(made);

    (void)test_write("made/tokenizer_config.json", settings, strlen(settings));
    (void)test_write("made/special_tokens_map.json", special, strlen(special));
    (void)test_write("made/generation_config.json", generation, strlen(generation));
    (void)test_write("made/chat_template.jinja", "{{ x }}", 7);
    emo_model *back = load("made");
    save(back, "kept", -1, 0);
    static const char *const names[][2] = {{"made/tokenizer_config.json", "kept/tokenizer_config.json"},
                                           {"made/special_tokens_map.json", "kept/special_tokens_map.json"},
                                           {"made/generation_config.json", "kept/generation_config.json"},
                                           {"made/chat_template.jinja", "kept/chat_template.jinja"},
                                           {"made/tokenizer.json", "kept/tokenizer.json"}};
    for (size_t i = 0; i < 5; i++)
        expect_same_file(names[i][0], names[i][1]);
    /* another tokenizer makes them wrong: they are made anew, and what cannot be made is removed */
    size_t size = 0;
    EXPECT_OK(emo_tokenizer_to_json(tok, NULL, 0, &size, &err));
    char *text = malloc(size + 1);
    assert_non_null(text);
    EXPECT_OK(emo_tokenizer_to_json(tok, text, size + 1, &size, &err));
    text[size] = '\0';
    char *place = strstr(text, word);
    assert_non_null(place);
    for (; place != NULL; place = strstr(place, word))
        place[strlen(word) / 2] = 'Z';
    word[strlen(word) / 2] = 'Z';
    emo_tokenizer *second = NULL;
    EXPECT_OK(emo_tokenizer_from_json(rt, text, size, &second, &err));
    free(text);
    EXPECT_OK(emo_model_set_tokenizer(back, second, &err));
    save(back, "kept", -1, 0);
    made = json_of("kept/tokenizer_config.json");
    assert_string_equal(emo__json_string(emo__json_get(made, "tokenizer_class"), NULL), "PreTrainedTokenizerFast");
    emo__json_free(made);
    assert_false(exists("kept/chat_template.jinja"));
    map = json_of("kept/special_tokens_map.json");
    assert_string_equal(emo__json_string(emo__json_get(map, "eos_token"), NULL), word);
    emo__json_free(map);
    emo_tokenizer_release(second);
    emo_tokenizer_release(tok);
    emo_model_release(back);
    emo_model_release(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_out_as_they_went_in),
        cmocka_unit_test(the_index_says_where_everything_is),
        cmocka_unit_test(unknown_keys_survive),
        cmocka_unit_test(older_and_dense_folders_are_known),
        cmocka_unit_test(a_padding_id_outside_the_vocabulary_is_none),
        cmocka_unit_test(the_tokenizers_files_are_kept_or_made),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
