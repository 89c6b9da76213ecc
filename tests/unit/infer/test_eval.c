/* SPDX-License-Identifier: Apache-2.0 */
/* Evaluation against sums over logits: windows, masks, pools, multiple choice. */
#include <emo/emo.h>
#include <math.h>

#include "base/runtime.h"
#include "io/files.h"
#include "model/model.h"
#include "support/support.h"

static const char config[] =
    "{\"vocab_size\":260,\"hidden_size\":32,\"intermediate_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
    "\"max_position_embeddings\":64,\"num_experts_per_tok\":3,\"num_experts\":9,\"num_shared_experts\":1,"
    "\"eos_token_id\":256,\"initializer_range\":0.3,\"emo_train_seq_len\":16}";
#define VOCAB 260
#define TOL 1e-5 /* f32 logits near 1, summed over some tens of tokens */

TEST_RUNTIME(2, EMO_ISA_AUTO)

static emo_model *make(void) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    emo_tokenizer *bytes = NULL;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), NULL, &model, &err));
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &bytes, &err));
    EXPECT_OK(emo_model_set_tokenizer(model, bytes, &err));
    emo_tokenizer_release(bytes);
    return model;
}

/* Sum over places t in [from, n) of -log softmax(logits of t - 1)[ids[t]], all in one sequence. */
static double loss_of(emo_model *model, const int32_t *ids, size_t n, size_t from, const emo_eval_options *options) {
    emo_error err = EMO_ERROR_INIT;
    static float logits[64 * VOCAB];
    double sum = 0.0;
    EXPECT_OK(emo_eval_logits(model, ids, n - 1, options, logits, sizeof logits / sizeof logits[0], &err));
    for (size_t t = from; t < n; t++) {
        const float *row = logits + (t - 1) * VOCAB;
        double total = 0.0;
        for (size_t v = 0; v < VOCAB; v++)
            total += exp((double)row[v]);
        sum += log(total) - (double)row[ids[t]];
    }
    return sum;
}

static const char *const texts[] = {"the first document has forty-one letters.", "short", "x",
                                    "another one, of another domain"};
static const char *const domains[] = {"a", "b", "a", "b"};

static void documents_are_scored_token_by_token(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make();
    emo_dataset *data = NULL;
    EXPECT_OK(emo_dataset_from_text(rt, emo_model_tokenizer(model), texts, domains, 4, &data, &err));
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 1, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 1, 4, 0, &err));
    emo_pool_policy *pool = NULL;
    EXPECT_OK(emo_pool_policy_create_fixed(rt, 4, &pool, &err));
    double plain = 0.0;
    for (int how = 0; how < 4; how++) {
        emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
        emo_eval_result total;
        emo_eval_result by_domain[2];
        emo_eval_result by_document[4];
        options.mask = (how & 1) != 0 ? mask : NULL;
        options.pool = (how & 2) != 0 ? pool : NULL;
        EXPECT_OK(emo_eval_documents(model, data, &options, &total, by_domain, by_document, &err));
        assert_int_equal(total.documents, 4);
        assert_int_equal(total.tokens, emo_dataset_tokens(data));
        assert_int_equal(total.bytes, emo_dataset_bytes(data));
        assert_int_equal(by_domain[0].documents, 2);
        assert_int_equal(by_domain[1].tokens, by_document[1].tokens + by_document[3].tokens);
        for (int64_t d = 0; d < 4; d++) {
            emo_document doc;
            EXPECT_OK(emo_dataset_document(data, d, &doc, &err));
            int32_t ids[64] = {256};
            memcpy(ids + 1, doc.tokens, (size_t)doc.count * sizeof *ids);
            double want = 0.0;
            size_t n = (size_t)doc.count + 1;
            for (size_t begin = 0; begin + 1 < n; begin += 16) /* rows of the training length */
                want += loss_of(model, ids + begin, n - begin < 17 ? n - begin : 17, 1, &options);
            assert_int_equal(by_document[d].tokens, doc.count);
            assert_true(fabs(by_document[d].loss_sum - want) < TOL * (double)doc.count);
        }
        assert_true(how == 0 || fabs(total.loss_sum - plain) > 1e-3); /* a restriction has an effect */
        plain = how == 0 ? total.loss_sum : plain;
    }
    emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
    options.seq_len = 65;
    EXPECT_STATUS(emo_eval_documents(model, data, &options, NULL, NULL, NULL, &err), EMO_E_RANGE, "64 positions");
    options.seq_len = -1;
    EXPECT_STATUS(emo_eval_documents(model, data, &options, NULL, NULL, NULL, &err), EMO_E_RANGE, "seq_len");
    emo_pool_policy_release(pool);
    emo_mask_release(mask);
    emo_dataset_release(data);
    emo_model_release(model);
}

static void only_completions_are_scored(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make();
    static const char lines[] = "{\"prompt\": \"two and two\", \"completion\": \" is four\"}\n"
                                "{\"prompt\": \"longer than a window of 16\", \"completion\": \" it is\"}\n"
                                "{\"text\": \"plain\"}\n";
    static const size_t prompts[] = {11, 26, 0};
    static const size_t wholes[] = {19, 32, 5};
    char folder[] = "/tmp/emo_test_pair_XXXXXX";
    char path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/pairs.jsonl", folder);
    EXPECT_OK(emo__file_write(&rt->mem, path, lines, sizeof lines - 1, &err));
    emo_dataset *data = NULL;
    const char *paths[] = {path};
    EXPECT_OK(emo_dataset_open(rt, paths, 1, emo_model_tokenizer(model), NULL, &data, &err));
    for (int32_t seq_len = 16; seq_len <= 64; seq_len += 48) {
        emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
        emo_eval_result total;
        emo_eval_result by_document[3];
        options.seq_len = seq_len;
        EXPECT_OK(emo_eval_documents(model, data, &options, &total, NULL, by_document, &err));
        assert_int_equal(total.bytes, 8 + 6 + 5);
        assert_int_equal(total.tokens, 8 + 6 + 5);
        for (size_t d = 0; d < 3; d++) {
            emo_document doc;
            EXPECT_OK(emo_dataset_document(data, (int64_t)d, &doc, &err));
            assert_int_equal(doc.count, wholes[d]);
            int32_t ids[64] = {256};
            memcpy(ids + 1, doc.tokens, wholes[d] * sizeof *ids);
            double want = 0.0;
            size_t n = wholes[d] + 1;
            size_t step = (size_t)seq_len;
            for (size_t begin = 0; begin + 1 < n; begin += step) { /* token 0 is eos, then the prompt, then the rest */
                size_t end = n - begin < step + 1 ? n - begin : step + 1;
                size_t from = prompts[d] + 1 > begin ? prompts[d] + 1 - begin : 1;
                want += from < end ? loss_of(model, ids + begin, end, from < 1 ? 1 : from, &options) : 0.0;
            }
            assert_int_equal(by_document[d].tokens, wholes[d] - prompts[d]);
            assert_int_equal(by_document[d].bytes, wholes[d] - prompts[d]);
            assert_true(fabs(by_document[d].loss_sum - want) < TOL * (double)doc.count);
        }
    }
    emo_dataset_release(data);
    emo_model_release(model);
}

static void choices_are_scored_per_byte(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make();
    static const char items[] =
        "{\"context\":\"two and two\",\"choices\":[\" is four\",\" is five, or so\",\" x\"],\"answer\":1}\n"
        "{\"context\":\"a context that is longer than the window\",\"choices\":[\"abc\",\"de\"],\"answer\":0}\n"
        "{\"context\":\"\",\"choices\":[\"p\",\"q\"],\"answer\":1}\n";
    char folder[] = "/tmp/emo_test_eval_XXXXXX";
    char path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/items.jsonl", folder);
    EXPECT_OK(emo__file_write(&rt->mem, path, items, sizeof items - 1, &err));
    emo_choices *choices = NULL;
    EXPECT_OK(emo_choices_open(rt, path, &choices, &err));
    emo_eval_result total;
    int32_t answers[3] = {-1, -1, -1};
    emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
    options.seq_len = 32;
    EXPECT_OK(emo_eval_choices(model, choices, &options, &total, answers, &err));
    assert_int_equal(total.items, 3);
    int64_t correct = 0;
    double sum = 0.0;
    for (int64_t i = 0; i < 3; i++) {
        emo_choice_item item;
        int32_t best = 0;
        double most = -INFINITY;
        EXPECT_OK(emo_choices_item(choices, i, &item, &err));
        for (int32_t c = 0; c < item.count; c++) {
            int32_t ids[80] = {256};
            size_t n = 1;
            size_t k = 0;
            EXPECT_OK(emo_tokenizer_encode(emo_model_tokenizer(model), item.context, strlen(item.context), ids + n, 60,
                                           &k, &err));
            n += k;
            size_t from = n;
            EXPECT_OK(emo_tokenizer_encode(emo_model_tokenizer(model), item.choices[c], strlen(item.choices[c]),
                                           ids + n, 19, &k, &err));
            n += k;
            size_t cut = n - 1 > 32 ? n - 1 - 32 : 0;
            double loss = loss_of(model, ids + cut, n - cut, from - cut, &options);
            sum += loss;
            if (-loss / (double)strlen(item.choices[c]) > most) {
                most = -loss / (double)strlen(item.choices[c]);
                best = c;
            }
        }
        assert_int_equal(answers[i], best);
        correct += best == item.answer;
    }
    assert_int_equal(total.correct, correct);
    assert_true(fabs(total.loss_sum - sum) < 1e-3);
    options.seq_len = 4;
    EXPECT_STATUS(emo_eval_choices(model, choices, &options, &total, NULL, &err), EMO_E_LIMIT, "window has 4");
    EXPECT_OK(emo_model_set_tokenizer(model, NULL, &err));
    EXPECT_STATUS(emo_eval_choices(model, choices, NULL, &total, NULL, &err), EMO_E_INVALID_ARGUMENT, "tokenizer");
    emo_choices_release(choices);
    EXPECT_OK(emo__remove_tree(&rt->mem, folder, &err));
    emo_model_release(model);
}

static void logits_check_their_arguments(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make();
    static float out[VOCAB];
    int32_t token = 3;
    EXPECT_STATUS(emo_eval_logits(model, &token, 0, NULL, out, VOCAB, &err), EMO_E_LIMIT, "0 tokens");
    EXPECT_STATUS(emo_eval_logits(model, &token, 65, NULL, out, VOCAB, &err), EMO_E_LIMIT, "65 tokens");
    EXPECT_STATUS(emo_eval_logits(model, &token, 1, NULL, out, VOCAB - 1, &err), EMO_E_LIMIT, "buffer");
    token = VOCAB;
    EXPECT_STATUS(emo_eval_logits(model, &token, 1, NULL, out, VOCAB, &err), EMO_E_RANGE, "vocabulary");
    emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
    emo_pool_policy *pool = NULL;
    EXPECT_OK(emo_pool_policy_create_fixed(rt, 1, &pool, &err));
    options.pool = pool; /* fewer than the two that a token chooses */
    token = 3;
    EXPECT_STATUS(emo_eval_logits(model, &token, 1, &options, out, VOCAB, &err), EMO_E_RANGE, "pool");
    emo_pool_policy_release(pool);
    emo_model_release(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_scored_token_by_token),
        cmocka_unit_test(only_completions_are_scored),
        cmocka_unit_test(choices_are_scored_per_byte),
        cmocka_unit_test(logits_check_their_arguments),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
