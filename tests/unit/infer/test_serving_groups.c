/* SPDX-License-Identifier: Apache-2.0 */
/* Who goes together: domains whose tokens choose the same experts, the bytes that saves, and that nobody waits long. */
#include <emo/device.h>

#include "serving_support.h"

enum { DOMAINS = 4, CROWD = 32, AT_ONCE = 8, POOL = 16, PROMPT = 24, TOKENS = 16, WIDTH = 64, WORDS = 64 };

/* 127 routed experts and a shared one, 8 a token. */
static const char domain_config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":257,\"hidden_size\":64,\"intermediate_size\":16,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":4,\"max_position_embeddings\":256,\"num_experts_per_tok\":8,\"num_experts\":128,"
    "\"num_shared_experts\":1,\"initializer_range\":0.1,\"eos_token_id\":256,\"pad_token_id\":0}";

/* Tokens of a domain (64 ids each) share a direction, and a quarter of the experts looks for it; everything else is
 * random. So prompts of one domain choose nearly the same pools, and those of two have little in common, as a trained
 * model's do. */
static emo_model *domain_model(emo_runtime *on) {
    emo_model *m = test_model(on, domain_config, 5);
    float directions[DOMAINS][WIDTH];
    float *embed = (float *)(uintptr_t)m->embed.data;
    test_fill(&directions[0][0], DOMAINS * WIDTH, 77, 1.0f);
    for (int32_t id = 0; id < VOCAB; id++)
        for (int i = 0; i < WIDTH; i++)
            embed[id * WIDTH + i] += 1.5f * directions[id / WORDS % DOMAINS][i];
    for (int32_t l = 0; l < m->config.layers; l++) {
        float *router = (float *)(uintptr_t)m->layers[l].w[EMO__W_ROUTER].data;
        for (int32_t e = 0; e < 127; e++)
            for (int i = 0; i < WIDTH; i++)
                router[e * WIDTH + i] += (0.10f + 0.004f * (float)(e / DOMAINS)) * directions[e % DOMAINS][i];
    }
    return m;
}

TEST_RUNTIME_AND_MODEL(2, domain_model(rt))

/* Domains in the order of arrival: eight of each, shuffled. */
static int domain_of(int i) { return (i * i + i) / 2 % CROWD / (CROWD / DOMAINS); }

static void ask(request *r, int i) {
    *r = (request){0};
    r->options = (emo_sequence_options)EMO_SEQUENCE_OPTIONS_INIT;
    r->options.max_tokens = TOKENS;
    r->options.ignore_eos = 1;
    r->n = PROMPT;
    for (int t = 0; t < PROMPT; t++)
        r->prompt[t] = domain_of(i) * WORDS + (t * 29 + i * 11 + t * t * i) % WORDS;
}

static emo_session_statistics crowd(emo_session_options o, const request *requests, int n) {
    o.count_experts = 1;
    emo_session *s = test_session(model, &o);
    for (int i = 0; i < n; i++)
        assert_int_equal(test_submit(s, &requests[i]), i);
    (void)test_finish(s, NULL);
    for (int i = 0; i < n; i++)
        test_as_alone(s, i, &requests[i]);
    emo_session_statistics did = test_statistics(s);
    emo_session_release(s);
    return did;
}

static double bytes_per_token(const emo_session_statistics *did) {
    return (double)did->decode_expert_bytes / (double)did->decode_sequences;
}

static void groups_read_few_experts(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static request requests[CROWD];
    emo_pool_policy *policy = NULL;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    int of_domain[DOMAINS] = {0};
    EXPECT_OK(emo_pool_policy_from_prompt(rt, POOL, &policy, &err));
    o.pool = policy;
    o.sequences = CROWD;
    o.batch_sequences = AT_ONCE;
    for (int i = 0; i < CROWD; i++) {
        of_domain[domain_of(i)]++;
        ask(&requests[i], i);
        test_alone(model, &o, &requests[i]);
    }
    for (int d = 0; d < DOMAINS; d++)
        assert_int_equal(of_domain[d], CROWD / DOMAINS);
    o.batching = EMO_BATCHING_ARRIVAL;
    emo_session_statistics arrival = crowd(o, requests, CROWD);
    o.batching = EMO_BATCHING_POOL;
    emo_session_statistics pool = crowd(o, requests, CROWD);
    double share = bytes_per_token(&pool) / bytes_per_token(&arrival);
    print_message("experts a batch of 8: %.1f by arrival, %.1f by pool (three layers); bytes of arrival's: %.1f %%\n",
                  (double)arrival.decode_experts / (double)arrival.decode_batches,
                  (double)pool.decode_experts / (double)pool.decode_batches, 100.0 * share);
    assert_true(share <= 0.45);
    /* and batches are as full: the same number of them, or nearly */
    assert_true(pool.decode_batches <= arrival.decode_batches + arrival.decode_batches / 8);
    assert_in_range(pool.longest_wait, 1, o.max_wait);
    emo_pool_policy_release(policy);
}

/* Without pools, by what was used lately: some experts are saved, too. */
static void use_groups_as_well(void **state) {
    (void)state;
    static request requests[CROWD];
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.sequences = CROWD;
    o.batch_sequences = AT_ONCE;
    for (int i = 0; i < CROWD; i++) {
        ask(&requests[i], i);
        test_alone(model, &o, &requests[i]);
    }
    emo_session_statistics arrival = crowd(o, requests, CROWD);
    o.batching = EMO_BATCHING_POOL;
    emo_session_statistics pool = crowd(o, requests, CROWD);
    double share = bytes_per_token(&pool) / bytes_per_token(&arrival);
    print_message("without pools: %.1f %%\n", 100.0 * share);
    assert_true(share < 0.9);
}

/* The bound holds for every size of batch and bound that can be kept, with domains of very different sizes; where it
 * cannot, the sequences take turns. */
static void nobody_waits_long(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { SOME = 21 };
    static request requests[SOME];
    emo_pool_policy *policy = NULL;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    EXPECT_OK(emo_pool_policy_from_prompt(rt, POOL, &policy, &err));
    o.pool = policy;
    o.sequences = SOME;
    for (int i = 0; i < SOME; i++) {
        ask(&requests[i], i);
        for (int t = 0; t < PROMPT; t++) /* one of domain 0, four of domain 1, the others of domain 2 */
            requests[i].prompt[t] = requests[i].prompt[t] % WORDS + (i == 11 ? 0 : i < 4 ? 1 : 2) * WORDS;
        requests[i].options.max_tokens = 5 + i % 5;
        test_alone(model, &o, &requests[i]);
    }
    bool reached = false;
    for (int batching = EMO_BATCHING_ARRIVAL; batching <= EMO_BATCHING_POOL; batching++) {
        for (int32_t at_once = 1; at_once <= 8; at_once += 3) {
            for (int32_t bound = 2; bound <= 18; bound *= 3) {
                o.batching = batching;
                o.batch_sequences = at_once;
                o.max_wait = bound;
                int32_t turns = (SOME + at_once - 1) / at_once - 1;
                int32_t most = bound > turns ? bound : turns;
                int32_t longest = crowd(o, requests, SOME).longest_wait;
                assert_in_range(longest, turns > 0 ? 1 : 0, most);
                reached = reached || (batching == EMO_BATCHING_POOL && longest > turns);
            }
        }
    }
    assert_true(reached); /* the bound was needed: grouping lets someone wait longer than taking turns does */
    emo_pool_policy_release(policy);
}

static void statistics_count(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.sequences = 2;
    o.max_tokens = 4;
    o.ignore_eos = 1;
    o.count_experts = 1;
    emo_session *s = test_session(model, &o);
    int32_t one = 7;
    emo_state now;
    EXPECT_OK(emo_session_append_tokens(s, 0, &one, 1, &err));
    EXPECT_OK(emo_session_advance(s, NULL, &now, &err));
    emo_session_statistics did = test_statistics(s);
    /* one token: 7 of the 127 and the shared one, in three layers, each of three matrices of 16 x 64 floats */
    uint64_t expert = 3 * 16 * 64 * sizeof(float);
    assert_int_equal(did.last_experts, 3 * 8);
    assert_int_equal(did.last_expert_bytes, 3 * 8 * expert);
    assert_int_equal(did.sequences, 1);
    EXPECT_OK(emo_session_append_tokens(s, 1, &one, 1, &err)); /* the same token: no other experts, at first */
    (void)test_finish(s, NULL);
    did = test_statistics(s);
    assert_int_equal(did.batches, 5);
    assert_int_equal(did.batch_sequences, 8);
    assert_int_equal(did.batch_tokens, 8);
    assert_int_equal(did.decode_sequences + 3, did.batch_sequences); /* two prompts, and the one beside the second */
    assert_int_equal(did.batch_expert_bytes, did.batch_experts * expert);
    assert_in_range(did.batch_experts, 5 * 24, 8 * 24);
    assert_int_equal(did.longest_wait, 0);
    assert_int_equal(did.page_bytes, 2 * 3 * 64 * 64 * sizeof(float));
    assert_int_equal(did.pages_used, 2);
    EXPECT_OK(emo_session_reset(s, &err));
    assert_int_equal(test_statistics(s).batches, 0);
    emo_session_release(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_read_few_experts),
        cmocka_unit_test(use_groups_as_well),
        cmocka_unit_test(nobody_waits_long),
        cmocka_unit_test(statistics_count),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
