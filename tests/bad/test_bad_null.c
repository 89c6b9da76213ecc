/* SPDX-License-Identifier: Apache-2.0 */
/* NULL for every object and every out pointer of every public function: EMO_E_INVALID_ARGUMENT with words, the neutral
 * value where there is no status, and never a crash. test_null_covers.sh checks that no function is missing here. */
#include <emo/emo.h>
#include <emo/sys/comm.h>

#include "support/stages.h"

static emo_error err;
static emo_error *e; /* &err, or NULL in the second round */

#define REFUSED(call)                                                                                                  \
    do {                                                                                                               \
        err.code = 1;                                                                                                  \
        err.message[0] = '\0';                                                                                         \
        emo_status refused_ = (call);                                                                                  \
        if (refused_ != EMO_E_INVALID_ARGUMENT)                                                                        \
            fail_msg("%s: %s %s", #call, emo_status_name(refused_), err.message);                                      \
        if (e != NULL && (err.code != EMO_E_INVALID_ARGUMENT || err.message[0] == '\0'))                               \
            fail_msg("%s: the error says nothing", #call);                                                             \
    } while (0)

typedef struct things {
    emo_runtime *rt;
    emo_tokenizer *tok;
    emo_decoder *decoder;
    emo_dataset *data;
    emo_choices *items;
    emo_model *model;
    emo_mask *mask;
    emo_pool_policy *pool;
    emo_router *router;
    emo_stats *stats;
    emo_comm *comm;
    emo_source *source;
    emo_session *session;
    emo_trainer *trainer;
    emo_model *trained;
    emo_task_set *tasks;
    emo_task_results *results;
} things;

static const char *path; /* of a folder that may be written */

static void basics(const things *t) {
    emo_runtime *rt = NULL;
    emo_source *source = NULL;
    emo_source_vtable vtable = EMO_SOURCE_VTABLE_INIT;
    char byte;
    assert_string_equal(emo_status_name(7), "EMO_E_UNKNOWN");
    assert_non_null(emo_status_text(7));
    assert_null(emo_dtype_name(-5));
    assert_null(emo_isa_name(-5));
    assert_true(emo_version_number() > 0 && emo_version_string() != NULL);
    assert_true(emo_struct_size(NULL) == 0 && emo_struct_size("") == 0 && emo_struct_size("emo_model") == 0);
    assert_true(emo_struct_size("emo_error") == sizeof(emo_error));
    REFUSED(emo_runtime_create(NULL, NULL, e));
    emo_runtime_release(NULL);
    emo_device_info device = EMO_DEVICE_INFO_INIT;
    REFUSED(emo_runtime_load_backend(NULL, "/x", e));
    REFUSED(emo_runtime_load_backend(t->rt, NULL, e));
    REFUSED(emo_device_get_info(NULL, 0, &device, e));
    REFUSED(emo_device_get_info(t->rt, 0, NULL, e));
    REFUSED(emo_model_to_device(NULL, "cpu", e));
    REFUSED(emo_model_to_device(t->model, NULL, e));
    assert_int_equal(emo_device_count(NULL), 0);
    emo_runtime_options_init(NULL);
    assert_int_equal(emo_runtime_threads(NULL), 0);
    assert_int_equal(emo_runtime_isa(NULL), EMO_ISA_AUTO);
    (void)rt;
    REFUSED(emo_source_open_path(NULL, "x", &source, e));
    REFUSED(emo_source_open_path(t->rt, NULL, &source, e));
    REFUSED(emo_source_open_path(t->rt, "", &source, e));
    REFUSED(emo_source_open_path(t->rt, "x", NULL, e));
    REFUSED(emo_source_from_memory(NULL, "x", 1, &source, e));
    REFUSED(emo_source_from_memory(t->rt, NULL, 1, &source, e));
    REFUSED(emo_source_from_memory(t->rt, "x", 1, NULL, e));
    REFUSED(emo_source_create(NULL, &vtable, NULL, &source, e));
    REFUSED(emo_source_create(t->rt, NULL, NULL, &source, e));
    REFUSED(emo_source_create(t->rt, &vtable, NULL, &source, e)); /* no functions */
    REFUSED(emo_source_create(t->rt, &vtable, NULL, NULL, e));
    REFUSED(emo_source_read_at(NULL, 0, &byte, 1, e));
    REFUSED(emo_source_read_at(t->source, 0, NULL, 1, e));
    assert_int_equal(emo_source_size(NULL), 0);
    assert_null(emo_source_map(NULL));
    emo_source_release(NULL);
}

static void tokenizers(const things *t) {
    emo_tokenizer *tok = NULL;
    emo_decoder *decoder = NULL;
    int32_t ids[4] = {0};
    char text[16];
    size_t n = 0;
    const char *view = NULL;
    emo_text_reader reader = {NULL, NULL};
    REFUSED(emo_tokenizer_create_bytes(NULL, &tok, e));
    REFUSED(emo_tokenizer_create_bytes(t->rt, NULL, e));
    REFUSED(emo_tokenizer_load(NULL, "x", &tok, e));
    REFUSED(emo_tokenizer_load(t->rt, NULL, &tok, e));
    REFUSED(emo_tokenizer_load(t->rt, "x", NULL, e));
    REFUSED(emo_tokenizer_load_source(NULL, t->source, &tok, e));
    REFUSED(emo_tokenizer_load_source(t->rt, NULL, &tok, e));
    REFUSED(emo_tokenizer_load_source(t->rt, t->source, NULL, e));
    REFUSED(emo_tokenizer_from_json(NULL, "{}", 2, &tok, e));
    REFUSED(emo_tokenizer_from_json(t->rt, NULL, 2, &tok, e));
    REFUSED(emo_tokenizer_from_json(t->rt, "{}", 2, NULL, e));
    REFUSED(emo_tokenizer_save(NULL, "x", e));
    REFUSED(emo_tokenizer_save(t->tok, NULL, e));
    REFUSED(emo_tokenizer_to_json(NULL, text, 16, &n, e));
    REFUSED(emo_tokenizer_to_json(t->tok, NULL, 16, &n, e));
    REFUSED(emo_tokenizer_to_json(t->tok, NULL, 0, NULL, e));
    REFUSED(emo_tokenizer_encode(NULL, "a", 1, ids, 4, &n, e));
    REFUSED(emo_tokenizer_encode(t->tok, NULL, 1, ids, 4, &n, e));
    REFUSED(emo_tokenizer_encode(t->tok, "a", 1, NULL, 4, &n, e));
    REFUSED(emo_tokenizer_encode(t->tok, "a", 1, ids, 4, NULL, e));
    REFUSED(emo_tokenizer_encode_with(NULL, NULL, "a", 1, ids, 4, &n, e));
    REFUSED(emo_tokenizer_encode_with(t->tok, NULL, NULL, 1, ids, 4, &n, e));
    REFUSED(emo_tokenizer_encode_with(t->tok, NULL, "a", 1, NULL, 4, &n, e));
    REFUSED(emo_tokenizer_encode_with(t->tok, NULL, "a", 1, ids, 4, NULL, e));
    REFUSED(emo_tokenizer_decode(NULL, ids, 1, text, 16, &n, e));
    REFUSED(emo_tokenizer_decode(t->tok, NULL, 1, text, 16, &n, e));
    REFUSED(emo_tokenizer_decode(t->tok, ids, 1, NULL, 16, &n, e));
    REFUSED(emo_tokenizer_decode(t->tok, ids, 1, text, 16, NULL, e));
    REFUSED(emo_tokenizer_set_eos(NULL, 1, e));
    REFUSED(emo_tokenizer_id_to_token(NULL, 1, &view, &n, e));
    REFUSED(emo_tokenizer_id_to_token(t->tok, 1, NULL, &n, e));
    REFUSED(emo_tokenizer_id_to_token(t->tok, 1, &view, NULL, e));
    REFUSED(emo_tokenizer_train(NULL, NULL, &reader, &tok, e));
    REFUSED(emo_tokenizer_train(t->rt, NULL, NULL, &tok, e));
    REFUSED(emo_tokenizer_train(t->rt, NULL, &reader, &tok, e)); /* no next */
    REFUSED(emo_tokenizer_train(t->rt, NULL, &reader, NULL, e));
    REFUSED(emo_decoder_create(NULL, NULL, &decoder, e));
    REFUSED(emo_decoder_create(t->tok, NULL, NULL, e));
    REFUSED(emo_decoder_push(NULL, 1, &view, &n, e));
    REFUSED(emo_decoder_push(t->decoder, 1, NULL, &n, e));
    REFUSED(emo_decoder_push(t->decoder, 1, &view, NULL, e));
    REFUSED(emo_decoder_flush(NULL, &view, &n, e));
    REFUSED(emo_decoder_flush(t->decoder, NULL, &n, e));
    REFUSED(emo_decoder_flush(t->decoder, &view, NULL, e));
    emo_tokenizer_encode_options_init(NULL);
    emo_decoder_options_init(NULL);
    emo_tokenizer_train_options_init(NULL);
    assert_int_equal(emo_tokenizer_vocab_size(NULL), 0);
    assert_int_equal(emo_tokenizer_eos(NULL), -1);
    assert_int_equal(emo_tokenizer_token_to_id(NULL, "a", 1), -1);
    assert_int_equal(emo_tokenizer_token_to_id(t->tok, NULL, 1), -1);
    assert_int_equal(emo_tokenizer_is_special(NULL, 1), 0);
    assert_int_equal(emo_tokenizer_hash(NULL), 0);
    emo_decoder_release(NULL);
    emo_tokenizer_release(NULL);
    assert_true(tok == NULL && decoder == NULL);
}

static void datasets(const things *t) {
    emo_dataset *data = NULL;
    emo_choices *items = NULL;
    emo_document document;
    emo_choice_item item;
    const char *paths[2] = {"x", NULL};
    static const int32_t tokens[] = {1, 2};
    static const size_t lengths[] = {1, 1};
    const char *holes[2] = {"a", NULL};
    REFUSED(emo_dataset_open(NULL, paths, 1, t->tok, NULL, &data, e));
    REFUSED(emo_dataset_open(t->rt, NULL, 1, t->tok, NULL, &data, e));
    REFUSED(emo_dataset_open(t->rt, paths, 2, t->tok, NULL, &data, e));
    REFUSED(emo_dataset_open(t->rt, paths, 0, t->tok, NULL, &data, e));
    REFUSED(emo_dataset_open(t->rt, paths, 1, NULL, NULL, &data, e));
    REFUSED(emo_dataset_open(t->rt, paths, 1, t->tok, NULL, NULL, e));
    REFUSED(emo_dataset_from_tokens(NULL, tokens, lengths, NULL, 2, 1, &data, e));
    REFUSED(emo_dataset_from_tokens(t->rt, NULL, lengths, NULL, 2, 1, &data, e));
    REFUSED(emo_dataset_from_tokens(t->rt, tokens, NULL, NULL, 2, 1, &data, e));
    REFUSED(emo_dataset_from_tokens(t->rt, tokens, lengths, holes, 2, 1, &data, e));
    REFUSED(emo_dataset_from_tokens(t->rt, tokens, lengths, NULL, 2, 1, NULL, e));
    REFUSED(emo_dataset_from_text(NULL, t->tok, paths, NULL, 1, &data, e));
    REFUSED(emo_dataset_from_text(t->rt, NULL, paths, NULL, 1, &data, e));
    REFUSED(emo_dataset_from_text(t->rt, t->tok, NULL, NULL, 1, &data, e));
    REFUSED(emo_dataset_from_text(t->rt, t->tok, holes, NULL, 2, &data, e));
    REFUSED(emo_dataset_from_text(t->rt, t->tok, paths, NULL, 1, NULL, e));
    REFUSED(emo_dataset_from_text_with(NULL, t->tok, paths, NULL, 1, NULL, &data, e));
    REFUSED(emo_dataset_from_text_with(t->rt, NULL, paths, NULL, 1, NULL, &data, e));
    REFUSED(emo_dataset_from_text_with(t->rt, t->tok, NULL, NULL, 1, NULL, &data, e));
    REFUSED(emo_dataset_from_text_with(t->rt, t->tok, holes, NULL, 2, NULL, &data, e));
    REFUSED(emo_dataset_from_text_with(t->rt, t->tok, paths, NULL, 1, NULL, NULL, e));
    REFUSED(emo_dataset_document(NULL, 0, &document, e));
    REFUSED(emo_dataset_document(t->data, 0, NULL, e));
    emo_texts *texts = NULL;
    emo_text_document text_document;
    emo_text_reader text_reader;
    REFUSED(emo_texts_open(NULL, paths, 1, NULL, &texts, e));
    REFUSED(emo_texts_open(t->rt, NULL, 1, NULL, &texts, e));
    REFUSED(emo_texts_open(t->rt, paths, 0, NULL, &texts, e));
    REFUSED(emo_texts_open(t->rt, paths, 2, NULL, &texts, e));
    REFUSED(emo_texts_open(t->rt, paths, 1, NULL, NULL, e));
    REFUSED(emo_texts_next(NULL, &text_document, e));
    REFUSED(emo_texts_reader(NULL, &text_reader, e));
    assert_int_equal(emo_texts_count(NULL) + emo_texts_bytes(NULL) + emo_texts_skipped(NULL), 0);
    emo_texts_release(NULL);
    REFUSED(emo_dataset_filter(NULL, NULL, 0, 0, &data, e));
    REFUSED(emo_dataset_filter(t->data, NULL, 0, 0, NULL, e));
    REFUSED(emo_choices_open(NULL, "x", &items, e));
    REFUSED(emo_choices_open(t->rt, NULL, &items, e));
    REFUSED(emo_choices_open(t->rt, "x", NULL, e));
    REFUSED(emo_choices_item(NULL, 0, &item, e));
    REFUSED(emo_choices_item(t->items, 0, NULL, e));
    emo_dataset_options_init(NULL);
    assert_int_equal(emo_dataset_count(NULL), 0);
    assert_int_equal(emo_dataset_tokens(NULL), 0);
    assert_int_equal(emo_dataset_bytes(NULL), 0);
    assert_int_equal(emo_dataset_skipped(NULL), 0);
    assert_int_equal(emo_dataset_eos(NULL), -1);
    assert_int_equal(emo_dataset_vocab_size(NULL), 0);
    assert_int_equal(emo_dataset_domains(NULL), 0);
    assert_null(emo_dataset_domain_name(NULL, 0));
    assert_int_equal(emo_choices_count(NULL), 0);
    emo_dataset_release(NULL);
    emo_choices_release(NULL);
    assert_true(data == NULL && items == NULL);
}

static void models(const things *t) {
    emo_model *model = NULL;
    emo_mask *mask = NULL;
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_source *const sources[2] = {t->source, NULL};
    char text[16];
    float numbers[4];
    size_t n = 0;
    static const int32_t list[] = {0, 1, 2};
    emo_prune_options prune = EMO_PRUNE_OPTIONS_INIT;
    REFUSED(emo_model_create_json(NULL, "{}", 2, NULL, &model, e));
    REFUSED(emo_model_create_json(t->rt, NULL, 2, NULL, &model, e));
    REFUSED(emo_model_create_json(t->rt, "{}", 2, NULL, NULL, e));
    REFUSED(emo_model_load_path(NULL, "x", NULL, &model, e));
    REFUSED(emo_model_load_path(t->rt, NULL, NULL, &model, e));
    REFUSED(emo_model_load_path(t->rt, "x", NULL, NULL, e));
    REFUSED(emo_model_load_sources(NULL, "{}", 2, sources, 1, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, NULL, 2, sources, 1, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, "{}", 2, NULL, 1, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, "{}", 2, sources, 0, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, "{}", 2, sources, 2, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, "{}", 2, sources, 1, NULL, NULL, e));
    REFUSED(emo_model_info_json(NULL, "{}", 2, &info, e));
    REFUSED(emo_model_info_json(t->rt, NULL, 2, &info, e));
    REFUSED(emo_model_info_json(t->rt, "{}", 2, NULL, e));
    REFUSED(emo_model_get_info(NULL, &info, e));
    REFUSED(emo_model_get_info(t->model, NULL, e));
    info.struct_size = 0;
    REFUSED(emo_model_get_info(t->model, &info, e));
    REFUSED(emo_model_config_json(NULL, text, 16, &n, e));
    REFUSED(emo_model_config_json(t->model, NULL, 16, &n, e));
    REFUSED(emo_model_set_tokenizer(NULL, t->tok, e));
    REFUSED(emo_model_set_compute(NULL, EMO_DTYPE_F32, e));
    REFUSED(emo_model_mask(NULL, &mask, e));
    REFUSED(emo_model_mask(t->model, NULL, e));
    REFUSED(emo_model_tensor_f32(NULL, "x", numbers, 4, &n, e));
    REFUSED(emo_model_tensor_f32(t->model, NULL, numbers, 4, &n, e));
    REFUSED(emo_model_tensor_f32(t->model, "x", NULL, 4, &n, e));
    REFUSED(emo_model_save(NULL, path, NULL, e));
    emo_export_info exported = {0};
    REFUSED(emo_model_export(NULL, path, NULL, NULL, e));
    REFUSED(emo_model_export(t->model, NULL, NULL, NULL, e));
    REFUSED(emo_model_export(t->model, path, NULL, &exported, e)); /* no struct_size */
    emo_export_options_init(NULL);
    emo_export_info_init(NULL);
    REFUSED(emo_model_save(t->model, NULL, NULL, e));
    REFUSED(emo_model_prune(NULL, t->mask, NULL, &model, e));
    REFUSED(emo_model_prune(t->model, NULL, NULL, &model, e));
    REFUSED(emo_model_prune(t->model, t->mask, NULL, NULL, e));
    prune.keep = list;
    REFUSED(emo_model_prune(t->model, NULL, &prune, &model, e));
    prune.keep_offsets = list;
    REFUSED(emo_model_prune(t->model, t->mask, &prune, &model, e)); /* both */
    REFUSED(emo_model_merge(NULL, t->model, NULL, &model, e));
    REFUSED(emo_model_merge(t->model, NULL, NULL, &model, e));
    REFUSED(emo_model_merge(t->model, t->model, NULL, NULL, e));
    assert_int_equal(emo_model_experts(NULL, 0), -1);
    assert_int_equal(emo_model_shared(NULL, 0), -1);
    assert_int_equal(emo_model_compute(NULL), EMO_DTYPE_F32);
    assert_int_equal(emo_model_original_expert(NULL, 0, 0), -1);
    assert_null(emo_model_tokenizer(NULL));
    emo_model_create_options_init(NULL);
    emo_model_load_options_init(NULL);
    emo_model_save_options_init(NULL);
    emo_model_info_init(NULL);
    emo_prune_options_init(NULL);
    emo_merge_options_init(NULL);
    emo_model_release(NULL);
    assert_true(model == NULL && mask == NULL);
}

static void masks_and_pools(const things *t) {
    emo_mask *mask = NULL;
    emo_pool_policy *pool = NULL;
    static const int32_t experts[] = {4};
    int32_t ids[4];
    int32_t n = 0;
    size_t size = 0;
    char text[16];
    emo_mask_options options = EMO_MASK_OPTIONS_INIT;
    REFUSED(emo_mask_create(NULL, 1, experts, NULL, 0, &mask, e));
    REFUSED(emo_mask_create(t->rt, 1, NULL, NULL, 0, &mask, e));
    REFUSED(emo_mask_create(t->rt, 1, experts, NULL, 0, NULL, e));
    options.layers = 1;
    REFUSED(emo_mask_create_with(t->rt, &options, &mask, e));
    REFUSED(emo_mask_create_with(t->rt, NULL, &mask, e));
    options.experts = experts;
    REFUSED(emo_mask_create_with(NULL, &options, &mask, e));
    REFUSED(emo_mask_create_with(t->rt, &options, NULL, e));
    REFUSED(emo_mask_clone(NULL, &mask, e));
    REFUSED(emo_mask_clone(t->mask, NULL, e));
    REFUSED(emo_mask_set(NULL, 0, 0, 1, e));
    REFUSED(emo_mask_set(t->mask, 99, 0, 1, e));
    REFUSED(emo_mask_set(t->mask, 0, -1, 1, e));
    REFUSED(emo_mask_list(NULL, 0, ids, 4, &n, e));
    REFUSED(emo_mask_list(t->mask, 0, NULL, 4, &n, e));
    REFUSED(emo_mask_list(t->mask, 0, ids, 4, NULL, e));
    REFUSED(emo_mask_union(NULL, t->mask, &mask, e));
    REFUSED(emo_mask_union(t->mask, NULL, &mask, e));
    REFUSED(emo_mask_union(t->mask, t->mask, NULL, e));
    REFUSED(emo_mask_intersect(NULL, t->mask, &mask, e));
    REFUSED(emo_mask_intersect(t->mask, NULL, &mask, e));
    REFUSED(emo_mask_intersect(t->mask, t->mask, NULL, e));
    REFUSED(emo_mask_subtract(NULL, t->mask, &mask, e));
    REFUSED(emo_mask_subtract(t->mask, NULL, &mask, e));
    REFUSED(emo_mask_subtract(t->mask, t->mask, NULL, e));
    REFUSED(emo_mask_complement(NULL, &mask, e));
    REFUSED(emo_mask_complement(t->mask, NULL, e));
    REFUSED(emo_mask_from_json(NULL, "{}", 2, &mask, e));
    REFUSED(emo_mask_from_json(t->rt, NULL, 2, &mask, e));
    REFUSED(emo_mask_from_json(t->rt, "{}", 2, NULL, e));
    REFUSED(emo_mask_to_json(NULL, text, 16, &size, e));
    REFUSED(emo_mask_to_json(t->mask, NULL, 16, &size, e));
    REFUSED(emo_mask_to_json(t->mask, NULL, 0, NULL, e));
    REFUSED(emo_mask_load(NULL, "x", &mask, e));
    REFUSED(emo_mask_load(t->rt, NULL, &mask, e));
    REFUSED(emo_mask_load(t->rt, "x", NULL, e));
    REFUSED(emo_mask_save(NULL, "x", e));
    REFUSED(emo_mask_save(t->mask, NULL, e));
    emo_mask_options_init(NULL);
    assert_int_equal(emo_mask_layers(NULL), 0);
    assert_int_equal(emo_mask_experts(NULL, 0), 0);
    assert_int_equal(emo_mask_shared(NULL, 0), 0);
    assert_int_equal(emo_mask_get(NULL, 0, 0), 0);
    assert_int_equal(emo_mask_is_always(NULL, 0, 0), 0);
    assert_int_equal(emo_mask_count(NULL, 0), 0);
    assert_int_equal(emo_mask_equal(NULL, NULL), 1);
    assert_int_equal(emo_mask_equal(t->mask, NULL), 0);
    emo_mask_release(NULL);

    static const int32_t sizes[] = {3};
    REFUSED(emo_pool_policy_create_none(NULL, &pool, e));
    REFUSED(emo_pool_policy_create_none(t->rt, NULL, e));
    REFUSED(emo_pool_policy_create_fixed(NULL, 3, &pool, e));
    REFUSED(emo_pool_policy_create_fixed(t->rt, 3, NULL, e));
    REFUSED(emo_pool_policy_create_uniform(NULL, 3, 4, &pool, e));
    REFUSED(emo_pool_policy_create_uniform(t->rt, 3, 4, NULL, e));
    REFUSED(emo_pool_policy_create_mass(NULL, 0.5f, 3, 4, &pool, e));
    REFUSED(emo_pool_policy_create_mass(t->rt, 0.5f, 3, 4, NULL, e));
    REFUSED(emo_pool_policy_create_scheduled(NULL, 3, 4, &pool, e));
    REFUSED(emo_pool_policy_create_scheduled(t->rt, 3, 4, NULL, e));
    REFUSED(emo_pool_policy_create_table(NULL, 1, 1, sizes, &pool, e));
    REFUSED(emo_pool_policy_create_table(t->rt, 1, 1, NULL, &pool, e));
    REFUSED(emo_pool_policy_create_table(t->rt, 1, 1, sizes, NULL, e));
    REFUSED(emo_pool_policy_from_prompt(NULL, 3, &pool, e));
    REFUSED(emo_pool_policy_from_prompt(t->rt, 3, NULL, e));
    REFUSED(emo_pool_policy_parse(NULL, "none", &pool, e));
    REFUSED(emo_pool_policy_parse(t->rt, NULL, &pool, e));
    REFUSED(emo_pool_policy_parse(t->rt, "none", NULL, e));
    REFUSED(emo_pool_policy_describe(NULL, text, 16, &size, e));
    REFUSED(emo_pool_policy_describe(t->pool, NULL, 16, &size, e));
    REFUSED(emo_pool_policy_describe(t->pool, NULL, 0, NULL, e));
    REFUSED(emo_pool_policy_set_scope(NULL, EMO_POOL_SCOPE_ROW, e));
    REFUSED(emo_pool_policy_set_forced(NULL, 1, e));
    REFUSED(emo_pool_policy_set_eval_pool(NULL, 4, e));
    assert_int_equal(emo_pool_policy_kind(NULL), EMO_POOL_NONE);
    assert_int_equal(emo_pool_policy_scope(NULL), EMO_POOL_SCOPE_DOCUMENT);
    emo_pool_policy_release(NULL);
    assert_true(mask == NULL && pool == NULL);
}

static void routers_and_comms(const things *t) {
    emo_router *router = NULL;
    emo_comm *comm = NULL;
    emo_comm_vtable vtable = {sizeof vtable, 0, NULL, NULL, NULL, NULL, NULL};
    emo_router_options options = EMO_ROUTER_OPTIONS_INIT;
    emo_router_batch batch = EMO_ROUTER_BATCH_INIT;
    emo_routing routing = EMO_ROUTING_INIT;
    float x[8] = {0};
    options.hidden = 4;
    options.experts = 4;
    options.top_k = 2;
    batch.rows = 1;
    batch.seq_len = 2;
    REFUSED(emo_router_create(NULL, &options, &router, e));
    REFUSED(emo_router_create(t->rt, &options, NULL, e));
    REFUSED(emo_router_set_weights(NULL, x, 8, e));
    REFUSED(emo_router_set_weights(t->router, NULL, 16, e));
    REFUSED(emo_router_set_score_bias(NULL, x, 4, e));
    REFUSED(emo_router_set_score_bias(t->router, NULL, 4, e));
    REFUSED(emo_router_update_score_bias(NULL, 0.1f, e));
    REFUSED(emo_router_forward(t->router, &batch, NULL, NULL, &routing, e)); /* no x */
    batch.x = x;
    REFUSED(emo_router_forward(NULL, &batch, NULL, NULL, &routing, e));
    REFUSED(emo_router_forward(t->router, NULL, NULL, NULL, &routing, e));
    REFUSED(emo_router_forward(t->router, &batch, NULL, NULL, NULL, e));
    batch.n_documents = 2;
    REFUSED(emo_router_forward(t->router, &batch, NULL, NULL, &routing, e)); /* no document_begin */
    REFUSED(emo_router_backward(NULL, &routing, NULL, x, NULL, e));
    REFUSED(emo_router_backward(t->router, NULL, NULL, x, NULL, e));
    emo_router_options_init(NULL);
    emo_router_batch_init(NULL);
    emo_routing_init(NULL);
    assert_null(emo_router_weights(NULL));
    assert_null(emo_router_score_bias(NULL));
    emo_router_release(NULL);

    REFUSED(emo_comm_create_single(NULL, &comm, e));
    REFUSED(emo_comm_create_single(t->rt, NULL, e));
    REFUSED(emo_comm_create_local(NULL, 1, &comm, e));
    REFUSED(emo_comm_create_local(t->rt, 1, NULL, e));
    REFUSED(emo_comm_create(t->rt, &vtable, NULL, 0, 1, &comm, e)); /* no functions */
    REFUSED(emo_comm_create(NULL, &vtable, NULL, 0, 1, &comm, e));
    REFUSED(emo_comm_create(t->rt, NULL, NULL, 0, 1, &comm, e));
    REFUSED(emo_comm_create(t->rt, &vtable, NULL, 0, 1, NULL, e));
    REFUSED(emo_comm_all_reduce_sum(NULL, x, 8, EMO_DTYPE_F32, e));
    REFUSED(emo_comm_all_reduce_sum(t->comm, NULL, 8, EMO_DTYPE_F32, e));
    REFUSED(emo_comm_broadcast(NULL, x, 8, 0, e));
    REFUSED(emo_comm_broadcast(t->comm, NULL, 8, 0, e));
    REFUSED(emo_comm_barrier(NULL, e));
    REFUSED(emo_comm_set_timeout(NULL, 1.0, e));
    emo_comm_abort(NULL);
    assert_int_equal(emo_comm_rank(NULL), 0);
    assert_int_equal(emo_comm_size(NULL), 1);
    emo_comm_release(NULL);
    assert_true(router == NULL && comm == NULL);
}

static void statistics(const things *t) {
    emo_stats *stats = NULL;
    emo_mask *mask = NULL;
    double probs[16];
    int32_t ids[64];
    int32_t offsets[8];
    size_t n = 0;
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;
    options.keep = 4;
    REFUSED(emo_stats_collect(NULL, t->data, NULL, &stats, e));
    REFUSED(emo_stats_collect(t->model, NULL, NULL, &stats, e));
    REFUSED(emo_stats_collect(t->model, t->data, NULL, NULL, e));
    REFUSED(emo_stats_probs(NULL, 0, probs, 16, &n, e));
    REFUSED(emo_stats_probs(t->stats, 0, NULL, 16, &n, e));
    REFUSED(emo_stats_easy_ep(NULL, 0, probs, 16, &n, e));
    REFUSED(emo_stats_easy_ep(t->stats, 0, NULL, 16, &n, e));
    REFUSED(emo_stats_merge(NULL, t->stats, &stats, e));
    REFUSED(emo_stats_merge(t->stats, NULL, &stats, e));
    REFUSED(emo_stats_merge(t->stats, t->stats, NULL, e));
    REFUSED(emo_stats_save(NULL, "x", e));
    REFUSED(emo_stats_save(t->stats, NULL, e));
    REFUSED(emo_stats_load(NULL, "x", &stats, e));
    REFUSED(emo_stats_load(t->rt, NULL, &stats, e));
    REFUSED(emo_stats_load(t->rt, "x", NULL, e));
    assert_int_equal(emo_stats_tokens(NULL), 0);
    assert_int_equal(emo_stats_layers(NULL), 0);
    emo_stats_options_init(NULL);
    emo_stats_release(NULL);

    REFUSED(emo_select(NULL, t->data, &options, &mask, e));
    REFUSED(emo_select(t->model, NULL, &options, &mask, e));
    REFUSED(emo_select(t->model, t->data, &options, NULL, e));
    REFUSED(emo_select_experts(NULL, t->data, &options, ids, 64, &n, offsets, e));
    REFUSED(emo_select_experts(t->model, NULL, &options, ids, 64, &n, offsets, e));
    REFUSED(emo_select_experts(t->model, t->data, &options, NULL, 64, &n, offsets, e));
    REFUSED(emo_select_experts(t->model, t->data, &options, ids, 64, &n, NULL, e));
    REFUSED(emo_select_from_stats(NULL, t->stats, &options, &mask, e));
    REFUSED(emo_select_from_stats(t->model, NULL, &options, &mask, e));
    REFUSED(emo_select_from_stats(t->model, t->stats, &options, NULL, e));
    emo_select_options_init(NULL);
    assert_true(stats == NULL && mask == NULL);
}

static void evaluation_and_sessions(const things *t) {
    emo_eval_result total;
    emo_session *session = NULL;
    emo_mask *mask = NULL;
    emo_state state = 0;
    float logits[STAGES_VOCAB];
    static const int32_t token = 3;
    REFUSED(emo_eval_documents(NULL, t->data, NULL, &total, NULL, NULL, e));
    REFUSED(emo_eval_documents(t->model, NULL, NULL, &total, NULL, NULL, e));
    REFUSED(emo_eval_choices(NULL, t->items, NULL, &total, NULL, e));
    REFUSED(emo_eval_choices(t->model, NULL, NULL, &total, NULL, e));
    REFUSED(emo_eval_logits(NULL, &token, 1, NULL, logits, STAGES_VOCAB, e));
    REFUSED(emo_eval_logits(t->model, NULL, 1, NULL, logits, STAGES_VOCAB, e));
    REFUSED(emo_eval_logits(t->model, &token, 1, NULL, NULL, STAGES_VOCAB, e));
    emo_eval_options_init(NULL);

    const int32_t *tokens = &token;
    const float *logprobs = logits;
    REFUSED(emo_session_create(NULL, NULL, &session, e));
    REFUSED(emo_session_create(t->model, NULL, NULL, e));
    REFUSED(emo_session_append_text(NULL, "x", e));
    REFUSED(emo_session_append_text(t->session, NULL, e));
    REFUSED(emo_session_append_tokens(NULL, 0, &token, 1, e));
    REFUSED(emo_session_append_tokens(t->session, 0, NULL, 1, e));
    REFUSED(emo_session_advance(NULL, NULL, &state, e));
    REFUSED(emo_session_advance(t->session, NULL, NULL, e));
    REFUSED(emo_session_logits(NULL, 0, logits, STAGES_VOCAB, e));
    REFUSED(emo_session_logits(t->session, 0, NULL, STAGES_VOCAB, e));
    REFUSED(emo_session_pool(NULL, 0, &mask, e));
    REFUSED(emo_session_pool(t->session, 0, NULL, e));
    REFUSED(emo_session_reset(NULL, e));
    assert_string_equal(emo_session_text(NULL), "");
    assert_string_equal(emo_session_text_of(NULL, 0), "");
    assert_string_equal(emo_session_text_of(t->session, 99), "");
    assert_int_equal(emo_session_generated(NULL, 0, &tokens, &logprobs), 0);
    assert_true(tokens == NULL && logprobs == NULL);
    assert_int_equal(emo_session_generated(t->session, 0, NULL, NULL), 0);
    assert_int_equal(emo_session_stop_reason(NULL, 0), EMO_STOP_NONE);
    emo_session_options_init(NULL);
    emo_session_release(NULL);
    assert_true(session == NULL && mask == NULL);
}

static void tasks(const things *t) {
    emo_task_set *set = NULL;
    emo_task_results *results = NULL;
    emo_mask *mask = NULL;
    emo_task_info info;
    emo_task_group group;
    emo_task_column column;
    emo_task_score score;
    emo_task_item item;
    char text[64];
    size_t n = 0;
    emo_task_set_options_init(NULL);
    emo_task_run_options_init(NULL);
    REFUSED(emo_task_set_open(NULL, "x", NULL, &set, e));
    REFUSED(emo_task_set_open(t->rt, NULL, NULL, &set, e));
    REFUSED(emo_task_set_open(t->rt, "x", NULL, NULL, e));
    REFUSED(emo_task_set_from_json(NULL, "{}", 2, NULL, &set, e));
    REFUSED(emo_task_set_from_json(t->rt, NULL, 2, NULL, &set, e));
    REFUSED(emo_task_set_from_json(t->rt, "{}", 2, NULL, NULL, e));
    assert_int_equal(emo_task_set_tasks(NULL), 0);
    assert_int_equal(emo_task_set_groups(NULL), 0);
    assert_null(emo_task_set_metric(NULL, 0, 0));
    REFUSED(emo_task_set_task(NULL, 0, &info, e));
    REFUSED(emo_task_set_task(t->tasks, 0, NULL, e));
    REFUSED(emo_task_set_group(NULL, 0, &group, e));
    REFUSED(emo_task_set_group(t->tasks, 0, NULL, e));
    REFUSED(emo_task_set_prompt(NULL, 0, 0, 0, text, sizeof text, &n, e));
    REFUSED(emo_task_set_prompt(t->tasks, 0, 0, 0, NULL, sizeof text, &n, e));
    REFUSED(emo_task_set_prompt(t->tasks, 0, 0, 0, text, sizeof text, NULL, e));
    REFUSED(emo_task_set_continuation(NULL, 0, 0, 0, text, sizeof text, &n, e));
    REFUSED(emo_task_set_continuation(t->tasks, 0, 0, 0, NULL, sizeof text, &n, e));
    REFUSED(emo_task_set_continuation(t->tasks, 0, 0, 0, text, sizeof text, NULL, e));
    REFUSED(emo_task_run(NULL, t->tasks, NULL, &results, e));
    REFUSED(emo_task_run(t->model, NULL, NULL, &results, e));
    REFUSED(emo_task_run(t->model, t->tasks, NULL, NULL, e));
    assert_int_equal(emo_task_results_columns(NULL), 0);
    REFUSED(emo_task_results_column(NULL, 0, &column, e));
    REFUSED(emo_task_results_column(t->results, 0, NULL, e));
    REFUSED(emo_task_results_score(NULL, 0, 0, 0, &score, e));
    REFUSED(emo_task_results_score(t->results, 0, 0, 0, NULL, e));
    REFUSED(emo_task_results_group(NULL, 0, 0, &score, e));
    REFUSED(emo_task_results_group(t->results, 0, 0, NULL, e));
    REFUSED(emo_task_results_item(NULL, 0, 0, 0, &item, e));
    REFUSED(emo_task_results_item(t->results, 0, 0, 0, NULL, e));
    REFUSED(emo_task_results_mask(NULL, 0, 0, &mask, e));
    REFUSED(emo_task_results_mask(t->results, 0, 0, NULL, e));
    emo_task_results_release(NULL);
    emo_task_set_release(NULL);
}

static void training(const things *t) {
    emo_trainer *trainer = NULL;
    emo_train_options options = EMO_TRAIN_OPTIONS_INIT;
    double lr = 0.0;
    options.max_steps = 5;
    REFUSED(emo_trainer_create(NULL, t->data, &options, &trainer, e));
    REFUSED(emo_trainer_create(t->model, NULL, &options, &trainer, e));
    REFUSED(emo_trainer_create(t->model, t->data, &options, NULL, e));
    REFUSED(emo_trainer_run(NULL, e));
    REFUSED(emo_trainer_step(NULL, NULL, e));
    REFUSED(emo_trainer_checkpoint(NULL, e));
    REFUSED(emo_trainer_checkpoint(t->trainer, e)); /* it has no folder */
    REFUSED(emo_schedule_lr(&options, 1, NULL, e));
    REFUSED(emo_schedule_lr(NULL, 1, &lr, e)); /* the defaults have no number of steps */
    emo_train_profile_entry entry = EMO_TRAIN_PROFILE_ENTRY_INIT;
    REFUSED(emo_trainer_profile(NULL, 0, &entry, e));
    REFUSED(emo_trainer_profile(t->trainer, 0, NULL, e));
    assert_null(emo_train_part_name(-1));
    assert_null(emo_train_part_name(EMO_TRAIN_PART_OTHER + 1));
    assert_int_equal(emo_trainer_at(NULL), 0);
    assert_int_equal(emo_trainer_steps(NULL), 0);
    emo_train_options_init(NULL);
    emo_trainer_release(NULL);
    assert_null(trainer);
}

static void all(const things *t) {
    basics(t);
    tokenizers(t);
    datasets(t);
    models(t);
    masks_and_pools(t);
    routers_and_comms(t);
    statistics(t);
    evaluation_and_sessions(t);
    tasks(t);
    training(t);
}

static void null_arguments_are_refused(void **state) {
    (void)state;
    things t = {0};
    e = &err;
    t.rt = test_runtime(1, EMO_ISA_AUTO);
    static const char item[] = "{\"context\": \"the\", \"choices\": [\" cat\", \" rate\"], \"answer\": 1}\n";
    char items_path[700];
    (void)snprintf(items_path, sizeof items_path, "%s/items.jsonl", stages_model());
    FILE *file = fopen(items_path, "wb");
    assert_non_null(file);
    (void)fputs(item, file);
    (void)fclose(file);
    EXPECT_OK(stages_open_data(t.rt, &t.data, &err));
    EXPECT_OK(stages_open_model(t.rt, &t.model, &err));
    EXPECT_OK(stages_open_model(t.rt, &t.trained, &err));
    EXPECT_OK(emo_choices_open(t.rt, items_path, &t.items, &err));
    EXPECT_OK(stages_open_tasks(t.rt, NULL, &t.tasks, &err));
    EXPECT_OK(emo_task_run(t.model, t.tasks, NULL, &t.results, &err));
    EXPECT_OK(emo_tokenizer_create_bytes(t.rt, &t.tok, &err));
    EXPECT_OK(emo_decoder_create(t.tok, NULL, &t.decoder, &err));
    EXPECT_OK(emo_model_mask(t.model, &t.mask, &err));
    EXPECT_OK(emo_pool_policy_create_fixed(t.rt, 4, &t.pool, &err));
    EXPECT_OK(emo_comm_create_single(t.rt, &t.comm, &err));
    EXPECT_OK(emo_source_from_memory(t.rt, "x", 1, &t.source, &err));
    EXPECT_OK(emo_stats_collect(t.model, t.data, NULL, &t.stats, &err));
    emo_router_options router = EMO_ROUTER_OPTIONS_INIT;
    router.hidden = 4;
    router.experts = 4;
    router.top_k = 2;
    EXPECT_OK(emo_router_create(t.rt, &router, &t.router, &err));
    EXPECT_OK(emo_session_create(t.model, NULL, &t.session, &err));
    emo_train_options train = stages_train_options();
    EXPECT_OK(emo_trainer_create(t.trained, t.data, &train, &t.trainer, &err));
    path = stages_run();
    all(&t);
    e = NULL;
    all(&t);
    emo_trainer_release(t.trainer);
    emo_session_release(t.session);
    emo_router_release(t.router);
    emo_stats_release(t.stats);
    emo_source_release(t.source);
    emo_comm_release(t.comm);
    emo_pool_policy_release(t.pool);
    emo_mask_release(t.mask);
    emo_decoder_release(t.decoder);
    emo_tokenizer_release(t.tok);
    emo_task_results_release(t.results);
    emo_task_set_release(t.tasks);
    emo_choices_release(t.items);
    emo_model_release(t.trained);
    emo_model_release(t.model);
    emo_dataset_release(t.data);
    emo_runtime_release(t.rt);
}

static int setup(void **state) {
    (void)state;
    stages_setup();
    return 0;
}
static int teardown(void **state) {
    (void)state;
    stages_teardown();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
