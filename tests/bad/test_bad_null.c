/* SPDX-License-Identifier: Apache-2.0 */
/* NULL for every object and every out pointer of every public function: EMO_E_INVALID_ARGUMENT with words, the neutral
 * value where there is no status, and never a crash. test_null_covers.sh checks that no function is missing here
 * and in test_bad_null_models.c. */
#include "null_things.h"

static void basics(const things *t) {
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
    assert_true(emo_struct_init("emo_train_options", NULL, sizeof(emo_train_options)) == 0);
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

static void all(const things *t) {
    basics(t);
    tokenizers(t);
    datasets(t);
    masks_and_pools(t);
    routers_and_comms(t);
}

static void null_arguments_are_refused(void **state) {
    (void)state;
    things_try(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, stages_setup, stages_teardown);
}
