/* SPDX-License-Identifier: Apache-2.0 */
/* Work in parts of operators: whatever the parts, and however they change on the way, logits and tokens keep their
 * bits. */
#include "infer/session.h"
#include "infer_support.h"
#include "model/pass_state.h"

/* Large enough that operators have several tasks; a dense layer and several heads to a kv head are among them. */
static const char wide_config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":2003,\"hidden_size\":96,\"intermediate_size\":80,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":6,\"num_key_value_heads\":2,\"max_position_embeddings\":1500,\"num_experts_per_tok\":3,"
    "\"num_experts_per_layer\":[9,0,13],\"num_shared_experts_per_layer\":[1,0,1],\"dense_intermediate_size\":150,"
    "\"initializer_range\":0.2,\"eos_token_id\":256,\"pad_token_id\":0}";
enum { WIDE_VOCAB = 2003, PROMPT = 333 };

/* What a pass has not computed yet cannot be mistaken for a result. */
static void spoil(emo__pass *pass) {
    size_t angles = (size_t)(pass->rope_room * pass->model->config.head_dim / 2) * sizeof *pass->cos;
    size_t filled = (size_t)(pass->rope_rows * pass->model->config.head_dim / 2) * sizeof *pass->cos;
    memset((char *)pass->cos + filled, 0xFF, angles - filled);
    memset((char *)pass->sin + filled, 0xFF, angles - filled);
    memset(pass->x, 0xFF, PROMPT * 96 * sizeof *pass->x);
    memset(pass->h, 0xFF, PROMPT * 96 * sizeof *pass->h);
    memset(pass->logits, 0xFF, 2 * WIDE_VOCAB * sizeof *pass->logits);
}

/* By work, by time and whole, in turns, also inside of a step. */
static void slicing_may_change_on_the_way(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const int32_t rows[2] = {PROMPT / 2, PROMPT - 1};
    static const int64_t work[] = {1 << 16, 400000, 3000000};
    int32_t ids[PROMPT];
    float *want = NULL;
    size_t bytes = 2 * WIDE_VOCAB * sizeof *want;
    test_prompt(ids, PROMPT, 3);
    for (int32_t threads = 1; threads <= 3; threads += 2) {
        emo_runtime *rt = test_runtime(threads, EMO_ISA_AUTO);
        emo_model *model = test_model(rt, wide_config, 5);
        test_document d;
        emo__pass *pass = test_document_pass(model, ids, PROMPT, rows, 2, &d);
        EXPECT_OK(emo__pass_run(pass, &d.batch, &err));
        if (want == NULL) {
            want = malloc(bytes);
            assert_non_null(want);
            memcpy(want, emo__pass_logits(pass), bytes);
        }
        assert_memory_equal(emo__pass_logits(pass), want, bytes);
        uint64_t whole = emo__pass_slices(pass), parts = 0;
        test_document_free(pass, &d);
        for (uint32_t seed = 0; seed < 6; seed++) {
            bool done = false;
            pass = test_document_pass(model, ids, PROMPT, rows, 2, &d);
            EXPECT_OK(emo__pass_begin(pass, &d.batch, &err));
            spoil(pass);
            for (uint32_t x = seed * 77 + 1; !done; x = x * 1664525u + 1013904223u) {
                emo__limit limit = {0};
                limit.slices = 1 + (int32_t)((x >> 27) & 3u);
                uint32_t how = (x >> 24) & 7u;
                if (how < 3)
                    emo__pass_set_slice_work(pass, work[how]);
                else if (how < 7 || seed == 0)
                    emo__pass_set_slice_time(pass, seed == 1 ? UINT64_C(1) << 50 : 1000u << how);
                else
                    emo__pass_set_slice_work(pass, 0);
                EXPECT_OK(emo__pass_advance(pass, &limit, &done, &err));
                parts += pass->at_task > 0;
            }
            assert_memory_equal(emo__pass_logits(pass), want, bytes);
            assert_true(emo__pass_slices(pass) > whole);
            test_document_free(pass, &d);
        }
        assert_true(parts > 20); /* stops inside of operators */
        emo_model_release(model);
        emo_runtime_release(rt);
    }
    free(want);
}

/* A run that is left in the middle of an operator leaves nothing behind for the next. */
static void a_new_batch_begins_anew(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    emo_model *model = test_model(rt, wide_config, 5);
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 3;
    o.ignore_eos = 1;
    emo_session *plain = test_session(model, &o), *s = test_session(model, &o);
    test_append(plain, 0, 100, 1);
    (void)test_finish(plain, NULL);
    const emo_budget little = {1, 1, 0};
    size_t inside = 0;
    for (size_t calls = 1; calls < 400; calls += 9) {
        emo_state now;
        test_append(s, 0, 150, calls);
        for (size_t i = 0; i < calls; i++)
            EXPECT_OK(emo_session_advance(s, &little, &now, &err));
        inside += s->pass->at_task > 0;
        EXPECT_OK(emo_session_reset(s, &err));
    }
    assert_true(inside > 3);
    test_append(s, 0, 100, 1);
    (void)test_finish(s, NULL);
    test_same_output(plain, 0, s, 0);
    emo_session_release(plain);
    emo_session_release(s);
    emo_model_release(model);
    emo_runtime_release(rt);
}

/* Several sequences, drawn from row by row when there is a deadline; sampled and greedy, in f32 and bf16. */
static void budgets_keep_every_draw(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const emo_budget budgets[] = {{1, 0, 0}, {300000, 0, 0}, {1, 3, 0}};
    for (int kind = 0; kind < 4; kind++) {
        emo_runtime *rt = test_runtime(kind % 2 + 1, EMO_ISA_AUTO);
        emo_model *model = test_model(rt, wide_config, 7);
        if (kind >= 2)
            EXPECT_OK(emo_model_set_compute(model, EMO_DTYPE_BF16, &err));
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;
        o.sequences = 5;
        o.max_tokens = 6;
        o.ignore_eos = 1;
        o.temperature = kind % 2 == 0 ? 0.0f : 1.0f;
        o.top_p = 0.9f;
        o.repetition_penalty = 1.1f;
        emo_session *plain = test_session(model, &o);
        for (int32_t q = 0; q < o.sequences; q++)
            test_append(plain, q, 3 + 40 * (size_t)q, (uint64_t)q);
        (void)test_finish(plain, NULL);
        for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
            emo_session *s = test_session(model, &o);
            for (int32_t q = 0; q < o.sequences; q++)
                test_append(s, q, 3 + 40 * (size_t)q, (uint64_t)q);
            assert_true(test_finish(s, &budgets[i]) > 6);
            for (int32_t q = 0; q < o.sequences; q++)
                test_same_output(plain, q, s, q);
            emo_session_release(s);
        }
        emo_session_release(plain);
        emo_model_release(model);
        emo_runtime_release(rt);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slicing_may_change_on_the_way),
        cmocka_unit_test(a_new_batch_begins_anew),
        cmocka_unit_test(budgets_keep_every_draw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
