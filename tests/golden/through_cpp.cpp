/* SPDX-License-Identifier: Apache-2.0 */
/* The checkers of golden cases through the C++ binding: router, inference, training. test_cpp_golden.sh links them with
 * golden.c in place of those that use the C API and the library's insides. Tolerances are theirs. */
#include <emo.hpp>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

extern "C" {
#include "golden/golden.h"
}

namespace {

const emo::runtime &runtime() {
    static const emo::runtime rt = emo::runtime::create();
    return rt;
}

/* A checker's body: what the binding throws fails the case. */
template <class F>
void checked(golden_result *r, F &&body) {
    try {
        body();
    } catch (const std::exception &e) {
        golden_fail(r, "%s", e.what());
    }
}

template <class T>
emo::span<const T> need(const golden_case *c, golden_result *r, const char *dtype, const std::string &name) {
    const golden_tensor *t = golden_find(&c->file, "%s", name.c_str());
    const void *data = golden_need(c, r, dtype, -1, "%s", name.c_str());
    if (data == nullptr)
        throw std::runtime_error("the case lacks " + name);
    return {static_cast<const T *>(data), static_cast<std::size_t>(t->count)};
}
emo::span<const float> floats(const golden_case *c, golden_result *r, const std::string &name) {
    return need<float>(c, r, "F32", name);
}
emo::span<const std::int64_t> whole(const golden_case *c, golden_result *r, const std::string &name) {
    return need<std::int64_t>(c, r, "I64", name);
}
template <class Range>
std::vector<std::int32_t> narrow(const Range &from) {
    std::vector<std::int32_t> to;
    for (const std::int64_t v : from)
        to.push_back(static_cast<std::int32_t>(v));
    return to;
}
float number(const golden_case *c, golden_result *r, const char *key) {
    return static_cast<float>(golden_number(c, r, key));
}
std::int32_t count(const golden_case *c, golden_result *r, const char *key) {
    return static_cast<std::int32_t>(golden_int(c, r, key));
}

void close(golden_result *r, const std::string &what, const float *got, emo::span<const float> want, double tolerance) {
    golden_close(r, what.c_str(), got, want.data(), static_cast<std::int64_t>(want.size()), tolerance);
}
void same(golden_result *r, const std::string &what, const std::int32_t *got, emo::span<const std::int64_t> want) {
    golden_same_i32(r, what.c_str(), got, want.data(), static_cast<std::int64_t>(want.size()));
}

/* ---- The router alone, one rank ---- */
void route(const golden_case *c, golden_result *r) {
    const emo__json *rows = emo__json_get(emo__json_at(emo__json_get(c->json, "ranks"), 0), "document_boundaries");
    const std::int64_t seq = golden_int(c, r, "seq_len");
    const std::string mode = golden_text(emo__json_get(c->json, "mode"));
    emo::router_options o;
    o.hidden = count(c, r, "d_model");
    o.experts = count(c, r, "num_experts");
    o.shared = count(c, r, "num_shared_experts");
    o.top_k = count(c, r, "top_k");
    o.norm_p = static_cast<float>(golden_number_or(c, "normalize_expert_weights_p", 0.0));
    o.balance_weight = number(c, r, "lb_loss_weight");
    o.z_weight = number(c, r, "z_loss_weight");
    emo::router router = emo::router::create(runtime(), o);
    router.set_weights(floats(c, r, "W"));

    std::vector<std::int64_t> begin;
    for (std::size_t row = 0; row < emo__json_size(rows); row++) {
        const emo__json *ends = emo__json_at(rows, row);
        const std::int64_t first = static_cast<std::int64_t>(row) * seq;
        begin.push_back(first);
        for (std::size_t i = 0; i < emo__json_size(ends); i++)
            begin.push_back(first + golden_whole(emo__json_at(ends, i)));
    }
    begin.push_back(static_cast<std::int64_t>(emo__json_size(rows)) * seq);
    emo::router_batch batch;
    batch.mode = mode == "train" ? EMO_ROUTER_TRAIN : EMO_ROUTER_EVAL;
    batch.rows = static_cast<std::int64_t>(emo__json_size(rows));
    batch.seq_len = seq;
    batch.x = floats(c, r, "x").data();
    batch.n_documents = static_cast<std::int64_t>(begin.size()) - 1;
    batch.document_begin = begin.data();
    batch.loss_div_factor = golden_number(c, r, "loss_div_factor");
    const std::vector<std::int32_t> sizes = narrow(whole(c, r, "pool_size"));
    emo::pool_policy pool = mode == "train"
                                ? emo::pool_policy::table(runtime(), 1, static_cast<std::int64_t>(sizes.size()), sizes)
                                : emo::pool_policy::uniform(runtime(), count(c, r, "min_document_expert_pool"),
                                                            count(c, r, "max_document_expert_pool"));
    if (mode != "train")
        pool.set_eval_pool(static_cast<std::int32_t>(golden_int_or(c, "eval_document_expert_pool", 0)));
    pool.set_forced(count(c, r, "num_forced_experts"));

    const emo::routing got = router.forward(batch, &pool);
    same(r, "expert_indices", got.indices, whole(c, r, "expert_indices"));
    same(r, "pool_size", got.pool_size, whole(c, r, "pool_size"));
    same(r, "tokens_per_expert", got.counts, whole(c, r, "tokens_per_expert"));
    close(r, "expert_weights", got.weights, floats(c, r, "expert_weights"), 2e-6);
    close(r, "scores", got.scores, floats(c, r, "scores"), 2e-6);
    close(r, "doc_probs", got.usage, floats(c, r, "doc_probs"), 2e-5);
    if (mode == "train") {
        golden_close_1(r, "lb_loss", got.balance_loss, static_cast<double>(floats(c, r, "lb_loss")[0]), 3e-6);
        golden_close_1(r, "z_loss", got.z_loss, static_cast<double>(floats(c, r, "z_loss")[0]), 2e-5);
    }
    const emo::span<const float> factors = floats(c, r, "R");
    const auto k = static_cast<std::size_t>(o.top_k - o.shared);
    std::vector<float> d(static_cast<std::size_t>(got.tokens) * static_cast<std::size_t>(o.top_k));
    for (std::size_t i = 0; i < factors.size(); i++)
        d[i / k * static_cast<std::size_t>(o.top_k) + i % k] = factors[i];
    const emo::span<const float> want_dx = floats(c, r, "dX");
    const emo::span<const float> want_dw = floats(c, r, "dW");
    std::vector<float> dx(want_dx.size());
    std::vector<float> dw(want_dw.size());
    router.backward(got, d, dx, dw);
    close(r, "dX", dx.data(), want_dx, 1e-5);
    close(r, "dW", dw.data(), want_dw, 1e-5);
}

/* ---- Logits of the rows of pass A, and greedy generation ---- */
void infer(const golden_case *c, golden_result *r) {
    emo::model model = emo::model::load(runtime(), c->dir);
    const auto vocab = static_cast<std::size_t>(model.info().vocab);
    const std::vector<std::int32_t> ids = narrow(whole(c, r, "A.input_ids"));
    const auto seq = static_cast<std::size_t>(golden_find(&c->file, "A.input_ids")->shape[1]);
    const emo::span<const float> want = floats(c, r, "A.logits");
    std::vector<float> got(seq * vocab);
    for (std::size_t at = 0; at < ids.size(); at += seq) {
        emo::logits(model, {ids.data() + at, seq}, got);
        close(r, "A.logits", got.data(), {want.data() + at * vocab, got.size()}, 1e-4);
    }
    emo::session_options o;
    o.max_tokens = count(c, r, "gen_new_tokens");
    o.ignore_eos = 1;
    for (const char *i : {"0", "1", "2"}) {
        const std::vector<std::int32_t> prompt = narrow(whole(c, r, std::string("gen.prompt.") + i));
        const emo::span<const std::int64_t> output = whole(c, r, std::string("gen.output.") + i);
        emo::session session = emo::session::create(model, o);
        session.append(0, prompt);
        while (session.advance() != EMO_STATE_DONE) {
        }
        const emo::span<const std::int32_t> tokens = session.generated().tokens;
        if (tokens.size() != static_cast<std::size_t>(o.max_tokens) || output.size() < tokens.size())
            golden_fail(r, "%zu tokens were generated", tokens.size());
        else
            same(r, "gen.output", tokens.data(), {output.data() + output.size() - tokens.size(), tokens.size()});
    }
}

/* ---- Training on the recorded rows: one document, whose rows come in order ---- */
emo::pool_policy recorded_pools(const golden_case *c, golden_result *r, std::int64_t steps) {
    const emo__json *per_layer = nullptr;
    emo__json *config = nullptr;
    emo_error err = EMO_ERROR_INIT;
    if (emo__json_load(golden_mem(), (std::string(c->dir) + "/config.json").c_str(), 1U << 20, &config, &err) != EMO_OK)
        throw std::runtime_error(err.message);
    per_layer = emo__json_get(config, "num_experts_per_layer");
    const std::int32_t layers = count(c, r, "n_layers");
    const std::int64_t batch = golden_int(c, r, "batch");
    const std::int64_t seq = golden_int(c, r, "seq_len");
    const emo::span<const std::int64_t> docs = whole(c, r, "router_docs");
    const emo::span<const std::int64_t> sizes = whole(c, r, "pool_sizes");
    const std::size_t places = static_cast<std::size_t>(steps * batch * seq);
    std::vector<std::int32_t> table(static_cast<std::size_t>(layers) * places, 1);
    std::size_t next = 0;
    for (std::size_t layer = 0; layer < static_cast<std::size_t>(layers); layer++) {
        if (per_layer != nullptr && golden_whole(emo__json_at(per_layer, layer)) == 0)
            continue;
        for (std::size_t d = 0; d < docs.size(); d += 4) {
            const std::int64_t place = (docs[d] * batch + docs[d + 1]) * seq + docs[d + 2];
            table[layer * places + static_cast<std::size_t>(place)] = static_cast<std::int32_t>(sizes[next++]);
        }
    }
    emo__json_free(config);
    return emo::pool_policy::table(runtime(), layers, static_cast<std::int64_t>(places), table);
}

double mean_of_step(emo::span<const float> values, std::size_t step, std::size_t layers) {
    double sum = 0.0;
    for (std::size_t l = 0; l < layers; l++)
        sum += static_cast<double>(values[step * layers + l]) / static_cast<double>(layers);
    return sum;
}

void train(const golden_case *c, golden_result *r) {
    const emo__json *schedule = emo__json_get(c->json, "scheduler");
    const emo__json *optimizer = emo__json_get(c->json, "optimizer");
    const emo__json *betas = emo__json_get(optimizer, "betas");
    const auto real = [](const emo__json *object, const char *key) {
        return static_cast<float>(golden_real(emo__json_get(object, key)));
    };
    emo::model model = emo::model::load(runtime(), c->dir);
    const std::vector<std::int32_t> ids = narrow(whole(c, r, "input_ids"));
    const emo::dataset data = emo::dataset::from_tokens(runtime(), ids, {ids.size()}, {}, count(c, r, "eos_token_id"));
    emo::train_options o;
    o.schedule = EMO_SCHEDULE_COSINE;
    o.balance_scope = EMO_BALANCE_MICROBATCH;
    o.balance_weight = number(c, r, "lb_loss_weight");
    o.z_weight = number(c, r, "router_z_loss_weight");
    o.lm_z_weight = number(c, r, "lm_z_loss_multiplier");
    o.max_grad_norm = number(c, r, "max_grad_norm");
    o.lr = real(optimizer, "lr");
    o.eps = real(optimizer, "eps");
    o.weight_decay = real(optimizer, "weight_decay");
    o.beta1 = static_cast<float>(golden_real(emo__json_at(betas, 0)));
    o.beta2 = static_cast<float>(golden_real(emo__json_at(betas, 1)));
    o.alpha_f = real(schedule, "alpha_f");
    o.warmup_min_lr = real(schedule, "warmup_min_lr");
    o.warmup = golden_whole(emo__json_get(schedule, "warmup_steps"));
    o.max_steps = golden_whole(emo__json_get(schedule, "max_steps"));
    o.batch_rows = count(c, r, "batch");
    o.accumulate = o.batch_rows / count(c, r, "microbatch_instances");
    o.seq_len = count(c, r, "seq_len");
    const emo::pool_policy pool = recorded_pools(c, r, o.max_steps);
    o.pool = pool.get();
    emo::trainer trainer = emo::trainer::create(model, data, o);

    const auto layers = static_cast<std::size_t>(golden_int(c, r, "num_moe_layers"));
    const auto steps = static_cast<std::size_t>(golden_int(c, r, "steps"));
    for (std::size_t s = 0; s < steps; s++) {
        const emo::step_metrics m = trainer.step();
        const auto want = [&](const char *name) { return static_cast<double>(floats(c, r, name)[s]); };
        golden_close_1(r, "ce", m.loss, want("ce_loss"), 1e-5);
        golden_close_1(r, "lm_z", m.lm_z_loss, want("lm_z_loss"), 5e-9);
        golden_close_1(r, "total", m.total_loss, want("total_loss"), 1e-5);
        golden_close_1(r, "grad_norm", m.grad_norm, want("grad_norm"), 1e-5);
        golden_close_1(r, "lb", m.balance_loss, mean_of_step(floats(c, r, "router_lb_loss"), s, layers), 5e-6);
        golden_close_1(r, "z", m.router_z_loss, mean_of_step(floats(c, r, "router_z_loss"), s, layers), 5e-5);
    }

    /* The weights afterwards, from the folder that the model saves once the trainer has let go of it. */
    trainer.reset();
    std::string folder = (std::filesystem::temp_directory_path() / "emo_golden.XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr)
        throw std::runtime_error("no temporary folder");
    model.save(folder + "/after");
    golden_file after = {};
    char why[512] = "";
    if (golden_read((folder + "/after/model.safetensors").c_str(), &after, why, sizeof why) != 0)
        golden_fail(r, "%s", why);
    for (std::size_t i = 0; i < after.count; i++) {
        const golden_tensor &t = after.tensors[i];
        close(r, t.name, static_cast<const float *>(t.data), floats(c, r, std::string("final.") + t.name), 1e-4);
    }
    if (after.count < 20)
        golden_fail(r, "%zu tensors were saved", after.count);
    golden_free(&after);
    std::filesystem::remove_all(folder);
}

} // namespace

extern "C" {
void golden_router(const golden_case *c, golden_result *r) {
    checked(r, [&] { route(c, r); });
}
void golden_infer(const golden_case *c, golden_result *r) {
    checked(r, [&] { infer(c, r); });
}
void golden_train(const golden_case *c, golden_result *r) {
    checked(r, [&] { train(c, r); });
}
}
