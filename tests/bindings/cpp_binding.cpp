/* SPDX-License-Identifier: Apache-2.0 */
/* The C++ binding, every handle of it, in both of its forms: test_cpp.sh builds this with exceptions and without. */
#include <emo.hpp>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#if EMO_CPP_EXCEPTIONS
#include <stdexcept>
#endif

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                       \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

namespace {

/* ---- One spelling for both forms ---- */
#if EMO_CPP_EXCEPTIONS
template <class T>
T must(T &&value) {
    return std::move(value);
}
#define MUST(call) static_cast<void>(call)
template <class F>
emo_status code_of(F &&call) {
    try {
        static_cast<void>(call());
    } catch (const emo::exception &e) {
        CHECK(e.what()[0] != '\0');
        return e.code();
    }
    return EMO_OK;
}
#else
template <class T>
T must(emo::result<T> &&got) {
    if (!got)
        std::fprintf(stderr, "%s\n", got.error().message());
    CHECK(got.has_value());
    return std::move(*got);
}
#define MUST(call) CHECK((call).has_value())
template <class F>
emo_status code_of(F &&call) {
    auto got = call();
    CHECK(got.has_value() || got.error().message()[0] != '\0');
    return got.code();
}
#endif

constexpr char config[] = R"({"model_type": "emo", "vocab_size": 257, "hidden_size": 16, "intermediate_size": 8,
    "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "num_experts": 9,
    "num_shared_experts": 1, "num_experts_per_tok": 3, "eos_token_id": 256, "pad_token_id": 256})";

struct world {
    emo::runtime rt;
    emo::tokenizer bytes;
    emo::model model;
    emo::dataset data;
};

world make_world() {
    emo::runtime_options o;
    o.threads = 1;
    emo::runtime rt = must(emo::runtime::create(o));
    emo::tokenizer bytes = must(emo::tokenizer::bytes(rt));
    emo::model m = must(emo::model::create(rt, config));
    MUST(m.set_tokenizer(bytes));
    const char *const documents[] = {"the quick brown fox jumps over the lazy dog",
                                     "sphinx of black quartz, judge my vow"};
    const char *const domains[] = {"foxes", "sphinxes"};
    emo::dataset data = must(emo::dataset::from_text(rt, bytes, documents, domains));
    return {std::move(rt), std::move(bytes), std::move(m), std::move(data)};
}

std::string path(const char *folder, const char *name) { return std::string(folder) + "/" + name; }

/* ---- Spans ---- */
void spans() {
    std::vector<float> v{1.0F, 2.0F};
    const emo::span<float> a(v);
    const emo::span<const float> b(v);
    int raw[3] = {1, 2, 3};
    const emo::span<const int> c(raw);
    CHECK(a.size() == 2 && b[1] > 1.5F && c.size() == 3 && c.end()[-1] == 3 && emo::span<int>().empty());
    static_assert(!std::is_constructible_v<emo::span<float>, const std::vector<float> &>, "const is kept");
    static_assert(!std::is_constructible_v<emo::span<float>, std::vector<double> &>, "types are kept");
}

/* ---- Handles move, and go in any order ---- */
void handles() {
    static_assert(!std::is_copy_constructible_v<emo::model> && std::is_nothrow_move_constructible_v<emo::model>);
    static_assert(!std::is_copy_assignable_v<emo::mask> && std::is_nothrow_move_assignable_v<emo::mask>);
    world w = make_world();
    emo::model moved = std::move(w.model);
    CHECK(!w.model && moved && w.model.get() == nullptr);
    w.model = std::move(moved);
    emo::model &self = w.model;
    w.model = std::move(self);
    CHECK(w.model);
    emo::session s = must(emo::session::create(w.model));
    w.rt.reset();
    w.bytes.reset();
    w.model.reset(); /* the session keeps all of them */
    w.data.reset();
    MUST(s.append("the"));
    CHECK(must(s.advance()) != EMO_STATE_PENDING);
}

/* ---- Masks are sets ---- */
void masks(const char *folder) {
    world w = make_world();
    const std::int32_t experts[] = {9, 0, 9};
    const std::int32_t shared[] = {1, 0, 1};
    emo::mask a = must(emo::mask::create(w.rt, experts, shared));
    emo::mask b = must(a.clone());
    CHECK(a == b && a.layers() == 3 && a.experts(1) == 0 && a.shared(2) == 1 && a.size() == 2);
    MUST(a.set(0, 1, true));
    MUST(a.set(0, 2, true));
    MUST(b.set(0, 2, true));
    CHECK(a != b && a.contains(0, 1) && !b.contains(0, 1) && a.is_always(0, 8) && a.count(0) == 3);
    CHECK(must(a | b) == a && must(a & b) == b);
    CHECK(must(must(a - b).list(0)) == (std::vector<std::int32_t>{1, 8}));
    CHECK(must(~a).count(0) == 7 && must(~~a) == a);
    CHECK(must((a | b) & b) == b && must((a - b) | b) == a && must((a & b) - a).size() == 2);
    const std::string text = must(a.to_json());
    CHECK(text.back() == '}' || text.back() == '\n');
    CHECK(must(emo::mask::from_json(w.rt, text)) == a);
    MUST(a.save(path(folder, "a.json")));
    CHECK(must(emo::mask::load(w.rt, path(folder, "a.json"))) == a);
    emo::mask_options o;
    const std::int32_t always_offsets[] = {0, 1, 1, 1};
    const std::int32_t always[] = {4};
    o.layers = 3;
    o.experts = experts;
    o.always_offsets = always_offsets;
    o.always = always;
    CHECK(must(emo::mask::create(w.rt, o)).is_always(0, 4));
    CHECK(code_of([&] { return a.set(0, 8, false); }) == EMO_E_INVALID_ARGUMENT);
    CHECK(code_of([&] { return a | must(w.model.mask()); }) == EMO_E_MISMATCH);
    CHECK(code_of([&] { return emo::mask::load(w.rt, path(folder, "none.json")); }) == EMO_E_NOT_FOUND);
#if !EMO_CPP_EXCEPTIONS
    CHECK(((a | must(w.model.mask())) & a).code() == EMO_E_MISMATCH); /* the first error wins */
    CHECK((~(a | must(w.model.mask())) - a).code() == EMO_E_MISMATCH);
#endif
}

/* ---- Tokenizers, texts, documents ---- */
void text(const char *folder) {
    world w = make_world();
    const emo::tokenizer_view t = w.model.tokenizer();
    CHECK(t && t.vocab_size() == 257 && t.eos() == 256 && t.is_special(256) && t.hash() == w.bytes.hash());
    const std::vector<std::int32_t> ids = must(t.encode("fox"));
    CHECK(ids.size() == 3 && must(t.decode(ids)) == "fox" && must(t.decode({})).empty());
    CHECK(must(t.id_to_token(ids[0])) == "f" && t.token_to_id("o") == ids[1] && t.token_to_id("fox") == -1);
    emo::encode_options special;
    special.parse_special = 1;
    CHECK(must(t.encode(EMO_TOKENIZER_EOS, special)).size() == 1);
    MUST(t.save(path(folder, "tokenizer.json")));
    emo::tokenizer again = must(emo::tokenizer::load(w.rt, path(folder, "tokenizer.json")));
    const std::string json = must(again.to_json());
    CHECK(again.hash() == t.hash() && must(emo::tokenizer::from_json(w.rt, json)).hash() == t.hash());
    const emo::source memory = must(emo::source::from_memory(w.rt, json.data(), json.size()));
    CHECK(must(emo::tokenizer::load(w.rt, memory)).hash() == t.hash());
    MUST(again.set_eos(-1));
    CHECK(again.eos() == -1 && code_of([&] { return t.id_to_token(9999); }) == EMO_E_NOT_FOUND);

    emo::decoder d = must(emo::decoder::create(t));
    CHECK(must(d.push(ids[0])) == "f" && must(d.flush()).empty());

    std::FILE *file = std::fopen(path(folder, "docs.jsonl").c_str(), "w");
    CHECK(file != nullptr);
    for (int i = 0; i < 20; i++)
        std::fprintf(file, "{\"text\": \"the fox and the hound %d\", \"domain\": \"d%d\"}\n", i % 3, i % 2);
    std::fclose(file);
    int reports = 0;
    emo::dataset_options o;
    o.on_progress([&](const emo_progress_info &) { reports++; });
    const emo::dataset all = must(emo::dataset::open(w.rt, path(folder, "docs.jsonl"), t, o));
    CHECK(all.count() == 20 && all.domains() == 2 && std::strcmp(all.domain_name(1), "d1") == 0 && reports > 0);
    CHECK(all.tokens() == all.bytes() && all.skipped() == 0 && all.eos() == 256 && all.vocab_size() == 257);
    CHECK(must(all.filter("d1")).count() == 10 && must(all.filter(nullptr, 3, 7)).count() == 3);
    CHECK(must(all.document(0)).count == 23 && code_of([&] { return all.document(20); }) == EMO_E_RANGE);
    const std::int32_t tokens[] = {1, 2, 3};
    const std::size_t lengths[] = {2, 1};
    CHECK(must(emo::dataset::from_tokens(w.rt, tokens, lengths)).count() == 2);
    const char *const one[] = {"one"};
    CHECK(code_of([&] { return emo::dataset::from_tokens(w.rt, tokens, lengths, one); }) == EMO_E_INVALID_ARGUMENT);

    emo::texts texts = must(emo::texts::open(w.rt, path(folder, "docs.jsonl")));
    CHECK(std::string_view(must(texts.next()).text, 3) == "the" && texts.count() == 1 && texts.bytes() == 23);
    emo::tokenizer_train_options small;
    small.vocab_size = 262;
    CHECK(must(emo::tokenizer::train(w.rt, small, must(texts.reader()))).vocab_size() == 262 && texts.skipped() == 0);
    int left = 5;
    const emo::tokenizer trained = must(emo::tokenizer::train(w.rt, small, [&]() -> std::optional<std::string_view> {
        if (left-- == 0)
            return std::nullopt;
        return "the fox and the hound";
    }));
    CHECK(trained.vocab_size() == 262);

    file = std::fopen(path(folder, "items.jsonl").c_str(), "w");
    CHECK(file != nullptr);
    std::fputs("{\"context\": \"the\", \"choices\": [\" fox\", \" hound\"], \"answer\": 1}\n", file);
    std::fclose(file);
    const emo::choices items = must(emo::choices::open(w.rt, path(folder, "items.jsonl")));
    CHECK(items.count() == 1 && must(items.item(0)).answer == 1);
    const emo::choices_result answered = must(emo::evaluate(w.model, items));
    CHECK(answered.total.items == 1 && answered.answers.size() == 1);
}

/* ---- Models: there and back, in part, from the host's storage, smaller ---- */
struct storage {
    std::vector<unsigned char> bytes;
    std::shared_ptr<int> alive;
    std::uint64_t size() const { return bytes.size(); }
    bool read(std::uint64_t offset, void *data, std::size_t n) const {
        std::memcpy(data, bytes.data() + offset, n);
        return true;
    }
};
std::vector<unsigned char> contents(const std::string &name) {
    std::FILE *file = std::fopen(name.c_str(), "rb");
    CHECK(file != nullptr);
    std::vector<unsigned char> all(1U << 20);
    all.resize(std::fread(all.data(), 1, all.size(), file));
    std::fclose(file);
    return all;
}

void models(const char *folder) {
    world w = make_world();
    const std::string where = path(folder, "model");
    MUST(w.model.save(where));
    emo::model again = must(emo::model::load(w.rt, where));
    const char *const name = "model.layers.0.mlp.gate.weight";
    const std::vector<float> gate = must(w.model.tensor(name));
    CHECK(!gate.empty() && must(again.tensor(name)) == gate);
    std::vector<float> copy(gate.size());
    CHECK(must(again.tensor(name, copy)) == gate.size() && copy == gate);
    CHECK(code_of([&] { return again.tensor("none"); }) == EMO_E_NOT_FOUND);
    const emo::model_info info = must(w.model.info());
    CHECK(info.layers == 2 && info.vocab == 257 &&
          must(emo::model::info_of(w.rt, config)).parameters == info.parameters);
    CHECK(w.model.experts(0) == 9 && w.model.shared(0) == 1 && w.model.original_expert(0, 3) == 3);
    CHECK(must(emo::model::create(w.rt, must(w.model.config_json()))));

    auto alive = std::make_shared<int>(0);
    {
        std::vector<emo::source> weights;
        weights.push_back(
            must(emo::source::from_storage(w.rt, storage{contents(where + "/model.safetensors"), alive})));
        CHECK(alive.use_count() == 2 && weights[0].size() > 1000 && weights[0].map() == nullptr);
        char four[4] = {0, 0, 0, 0};
        MUST(weights[0].read_at(8, four, 1));
        CHECK(four[0] == '{' && code_of([&] { return weights[0].read_at(1U << 30, four, 4); }) == EMO_E_RANGE);
        const emo::model stored = must(emo::model::load(w.rt, config, weights));
        CHECK(must(stored.tensor(name)) == gate && !stored.tokenizer());
        weights.clear();
    }
    CHECK(alive.use_count() == 1); /* the source went with its last user, and the storage with it */
    CHECK(must(emo::source::open(w.rt, where + "/config.json")).size() > 100);

    emo::mask few = must(must(w.model.mask()).clone());
    for (std::int32_t layer = 0; layer < few.layers(); layer++) {
        for (std::int32_t e = 3; e < 8; e++)
            MUST(few.set(layer, e, false));
    }
    emo::model_load_options part;
    part.subset = few.get();
    CHECK(must(must(emo::model::load(w.rt, where, part)).info()).loaded < info.loaded);
    emo::model_load_options tight;
    tight.memory_budget = 20000;
    tight.cache_policy = EMO_CACHE_LFU;
    const emo::model on_demand = must(emo::model::load(w.rt, where, tight));
    CHECK(must(on_demand.tensor(name)) == gate && must(w.model.cache_stats()).capacity == 0);
    CHECK(must(on_demand.cache_stats()).bytes <= 20000 && must(on_demand.cache_stats()).policy == EMO_CACHE_LFU);
    tight.memory_budget = 1;
    CHECK(code_of([&] { return emo::model::load(w.rt, where, tight); }) == EMO_E_RANGE);
    emo::model small = must(w.model.prune(few));
    CHECK(small.experts(0) == 4 && small.original_expert(0, 3) == 8);
    CHECK(must(must(w.model.merge(small)).tensor(name)) == gate);
    CHECK(must(w.model.export_to(path(folder, "model.gguf"))).tensors > 5);
    CHECK(must(emo::model::load(w.rt, path(folder, "model.gguf"))).experts(0) == 9);
    MUST(w.model.set_compute(EMO_DTYPE_BF16));
    CHECK(w.model.compute() == EMO_DTYPE_BF16 && code_of([&] { return w.model.to_device("moon"); }) == EMO_E_NOT_FOUND);
    MUST(w.model.to_device("cpu"));
    MUST(w.model.remove_tokenizer());
    CHECK(!w.model.tokenizer());
}

/* ---- Statistics, selection, evaluation ---- */
void subsets(const char *folder) {
    world w = make_world();
    const emo::stats a = must(emo::stats::collect(w.model, w.data));
    const emo::stats both = must(a.merge(a));
    CHECK(both.tokens() == 2 * a.tokens() && both.layers() == 2 && must(a.probs(0)).size() == 9);
    CHECK(code_of([&] { return a.easy_ep(0); }) == EMO_E_NOT_FOUND);
    MUST(both.save(path(folder, "stats.json")));
    emo::select_options o;
    o.keep = 4;
    const emo::stats loaded = must(emo::stats::load(w.rt, path(folder, "stats.json")));
    const emo::mask usage = must(emo::select(w.model, loaded, o));
    CHECK(usage == must(emo::select(w.model, w.data, o)) && usage.count(0) == 4);
    CHECK(must(emo::select(w.rt, w.model, "a fox", o)).count(1) == 4);
    emo::expert_lists lists = must(emo::select_experts(w.model, w.data, o));
    CHECK(lists.ids.size() == 8 && lists.offsets.back() == 8);
    emo::prune_options by_lists;
    by_lists.keep = lists.ids.data();
    by_lists.keep_offsets = lists.offsets.data();
    CHECK(must(w.model.prune(by_lists)).experts(1) == 4);
    o.keep = 10;
    CHECK(code_of([&] { return emo::select(w.model, w.data, o); }) == EMO_E_RANGE);

    const emo::documents_result sums = must(emo::evaluate(w.model, w.data));
    CHECK(sums.total.documents == 2 && sums.per_domain.size() == 2 && sums.per_document[0].tokens == 43);
    const std::int32_t ids[] = {1, 2, 3};
    std::vector<float> out(3 * 257);
    MUST(emo::logits(w.model, ids, out));
    CHECK(std::isfinite(out[0]) &&
          code_of([&] { return emo::logits(w.model, ids, emo::span<float>(out.data(), 1)); }) == EMO_E_LIMIT);
}

/* ---- Tasks ---- */
void tasks(const char *folder) {
    world w = make_world();
    const std::string where = path(folder, "items.jsonl");
    std::FILE *file = std::fopen(where.c_str(), "wb");
    CHECK(file != nullptr);
    std::fputs("{\"q\": \"a fox\", \"choices\": [\"runs\", \"is\"], \"answer\": 1}\n", file);
    std::fclose(file);
    emo::task_set_options so;
    so.root = folder;
    const emo::task_set set = must(emo::task_set::from_json(
        w.rt,
        "{\"tasks\": [{\"name\": \"t\", \"type\": \"multiple_choice\", \"data\": \"items.jsonl\", \"prompt\": "
        "\"{q}\"}], \"groups\": [{\"name\": \"g\", \"tasks\": [\"t\"]}]}",
        so));
    CHECK(set.tasks() == 1 && set.groups() == 1 && must(set.task(0)).items == 1);
    CHECK(must(set.group(0)).count == 1 && std::string(set.metric(0, 0)) == "accuracy");
    CHECK(must(set.prompt(0, 0)) == "a fox" && must(set.continuation(0, 0, 1)) == " is");
    CHECK(code_of([&] { return emo::task_set::open(w.rt, path(folder, "none.json")); }) == EMO_E_NOT_FOUND);
    emo::task_run_options o;
    const std::int32_t keep[] = {0, 4};
    o.keep = keep;
    o.n_keep = 2;
    o.method = EMO_SELECT_RANDOM;
    const emo::task_results results = must(emo::run(w.model, set, o));
    CHECK(results.columns() == 2 && must(results.column(1)).keep == 4);
    CHECK(must(results.score(0, 0)).items == 1 && must(results.group(0, 1)).items == 1);
    CHECK(must(results.item(0, 1, 0)).choices == 2);
    CHECK(must(results.mask(0, 1)).count(0) == 4 && !must(results.mask(0, 0)));
}

/* ---- Sessions ---- */
void sessions() {
    world w = make_world();
    const emo::pool_policy pool = must(emo::pool_policy::from_prompt(w.rt, 4));
    emo::session_options o;
    o.max_tokens = 12;
    o.ignore_eos = 1;
    o.pool = pool.get();
    const char *const stop[] = {"never said"};
    o.set_stop(stop);
    emo::session s = must(emo::session::create(w.model, o));
    MUST(s.append("the fox"));
    std::string whole;
    emo::generation pieces = s.generate();
    for (std::string_view piece : pieces)
        whole += piece;
    CHECK(pieces.code() == EMO_OK && !whole.empty() && s.generated().tokens.size() == 12);
    CHECK(s.generated().logprobs[0] < 0.0F && s.stop_reason() == EMO_STOP_LENGTH && s.text(5).empty());
    CHECK(must(s.pool()).count(0) == 5 && must(s.logits()).size() == 257);
    std::vector<float> row(257);
    MUST(s.logits(0, row));
    CHECK(row == must(s.logits()));
    MUST(s.restart());
    MUST(s.append(0, std::vector<std::int32_t>{1, 2, 3}));
    emo_budget tiny = {0, 1, 0};
    std::size_t empty = 0;
    for (std::string_view piece : s.generate(tiny)) /* pieces may be empty while the budget cuts the work */
        empty += piece.empty();
    CHECK(empty > 0);
    CHECK(code_of([&] { return s.append(0, {99999}); }) == EMO_E_RANGE);
}

void serving() {
    world w = make_world();
    emo::session_options o;
    o.sequences = 2;
    o.batch_sequences = 1;
    o.batching = EMO_BATCHING_POOL;
    o.count_experts = 1;
    emo::session s = must(emo::session::create(w.model, o));
    emo::sequence_options q;
    q.max_tokens = 3;
    q.ignore_eos = 1;
    const std::int32_t first = must(s.add(q)), second = must(s.add());
    CHECK(first == 0 && second == 1 && code_of([&] { return s.add(q); }) == EMO_E_LIMIT);
    MUST(s.append_to(first, "the fox"));
    MUST(s.append_to(second, "the dog"));
    CHECK(must(s.advance()) == EMO_STATE_TEXT);
    MUST(s.cancel(second));
    while (must(s.advance()) != EMO_STATE_DONE) {
    }
    CHECK(s.generated(first).tokens.size() == 3 && s.stop_reason(second) == EMO_STOP_CANCELLED);
    MUST(s.remove(second));
    const emo::session_statistics did = must(s.statistics());
    CHECK(did.sequences == 1 && did.batches >= 3 && did.last_sequences == 1 && did.batch_experts > did.batches);
    CHECK(did.pages_used == 1 && must(s.add()) == second);
}

/* ---- Training, and callbacks that cancel or throw ---- */
void training(const char *folder) {
    world w = make_world();
    const emo::pool_policy pool = must(emo::pool_policy::uniform(w.rt, 3, 8));
    emo::train_options o;
    o.pool = pool.get();
    o.max_steps = 4;
    o.batch_rows = 2;
    o.seq_len = 16;
    o.profile = 1;
    int steps = 0;
    o.each_step([&steps](const emo_step_metrics &m) { steps += m.loss > 0.0; });
    CHECK(must(emo::schedule_lr(o, 4)) < o.lr);
    const emo::train_plan plan = must(emo::plan_training(w.rt, must(w.model.config_json()), o));
    CHECK(plan.parameters == must(w.model.info()).parameters && plan.moments == 2 * plan.gradients && plan.fits == -1);
    emo::train_plan_options elsewhere;
    elsewhere.device = "moon";
    CHECK(code_of([&] { return emo::plan_training(w.rt, must(w.model.config_json()), o, elsewhere); }) ==
          EMO_E_NOT_FOUND);
    {
        emo::trainer t = must(emo::trainer::create(w.model, w.data, o));
        CHECK(must(t.step()).step == 1 && t.at() == 1 && t.steps() == 4);
        MUST(t.run());
        CHECK(steps == 4 && t.at() == 4 && must(t.profile()).size() > 5);
        CHECK(std::strcmp(emo::train_part_name(EMO_TRAIN_PART_DATA), "data") == 0);
    }
    emo::train_options cancelled = o;
    cancelled.out = nullptr;
    cancelled.each_step([](const emo_step_metrics &m) { return m.step == 2; });
    emo::trainer t = must(emo::trainer::create(w.model, w.data, cancelled));
    CHECK(code_of([&] { return t.run(); }) == EMO_E_CANCELLED && t.at() == 2);
    MUST(t.run()); /* and goes on */
    t.reset();

    const std::string run = path(folder, "run");
    emo::train_options kept = o;
    kept.out = run.c_str();
    emo::trainer k = must(emo::trainer::create(w.model, w.data, kept));
    MUST(k.step());
    MUST(k.checkpoint());
    k.reset();
#if EMO_CPP_EXCEPTIONS
    emo::train_options throwing = o;
    throwing.each_step([](const emo_step_metrics &) { throw std::runtime_error("enough"); });
    emo::trainer thrower = emo::trainer::create(w.model, w.data, throwing);
    for (int again = 0; again < 2; again++) { /* the trainer stays usable */
        bool caught = false;
        try {
            thrower.run();
        } catch (const std::runtime_error &e) {
            caught = std::strcmp(e.what(), "enough") == 0;
        }
        CHECK(caught && thrower.at() == 1 + again);
    }
    bool caught = false;
    emo::tokenizer_train_options small;
    try {
        static_cast<void>(emo::tokenizer::train(w.rt, small, []() -> std::optional<std::string_view> { throw 7; }));
    } catch (int seven) {
        caught = seven == 7;
    }
    CHECK(caught);
    emo::session_options so;
    so.on_progress([](const emo_progress_info &) { throw std::logic_error("no"); });
    thrower.reset();
    emo::session s = emo::session::create(w.model, so);
    s.append("the");
    caught = false;
    try {
        for (std::string_view piece : s.generate())
            static_cast<void>(piece);
    } catch (const std::logic_error &) {
        caught = true;
    }
    CHECK(caught);
    struct torn {
        std::uint64_t size() const { return 100; }
        bool read(std::uint64_t, void *, std::size_t) const { throw 1; }
    };
    CHECK(code_of([&] {
              char c = 0;
              return emo::source::from_storage(w.rt, torn()).read_at(0, &c, 1), 0;
          }) == EMO_E_IO);
#endif
}

/* ---- Hooks of the runtime live as long as anything that may call them ---- */
struct counting_memory {
    std::shared_ptr<std::atomic<long>> live;
    void *allocate(std::size_t size, std::size_t alignment) {
        void *p = nullptr;
        if (posix_memalign(&p, alignment < sizeof(void *) ? sizeof(void *) : alignment, size) != 0)
            return nullptr;
        ++*live;
        return p;
    }
    void deallocate(void *p, std::size_t, std::size_t) {
        --*live;
        std::free(p);
    }
};

void hooks() {
    auto live = std::make_shared<std::atomic<long>>(0);
    std::atomic<long> loops{0};
    {
        emo::mask survivor;
        {
            emo::runtime_options o;
            o.use_allocator(counting_memory{live});
            o.use_executor(2, [&loops](const emo::parallel_loop &loop) {
                loops++;
                for (std::size_t i = 0; i < loop.count(); i++)
                    loop(i, i % 2);
            });
            int lines = 0;
            o.on_log(EMO_LOG_DEBUG, [&lines](emo_log_level, std::string_view) { lines++; });
            const emo::runtime rt = must(emo::runtime::create(o));
            CHECK(rt.threads() == 2 && rt.isa() != EMO_ISA_AUTO && rt.devices() >= 1);
            CHECK(std::strcmp(must(rt.device(0)).backend, "cpu") == 0);
            emo::runtime &changed = const_cast<emo::runtime &>(rt);
            CHECK(code_of([&] { return changed.load_backend("relative.so"); }) == EMO_E_INVALID_ARGUMENT);
            emo::model m = must(emo::model::create(rt, config));
            survivor = must(m.mask());
        }
        CHECK(*live > 0 && loops > 0 && live.use_count() == 2); /* only the mask is left, and the allocator with it */
        emo::mask other = must(~survivor);
        survivor.reset();
        CHECK(other.count(0) == 1);
    }
    CHECK(*live == 0 && live.use_count() == 1);
}

/* ---- Memory that lacks, at every allocation of a small life: a status, nothing is left, and the next life is whole
 * ---- */
struct short_memory {
    counting_memory memory;
    std::shared_ptr<std::atomic<long>> left;
    void *allocate(std::size_t size, std::size_t alignment) {
        return left->fetch_sub(1) > 0 ? memory.allocate(size, alignment) : nullptr;
    }
    void deallocate(void *p, std::size_t size, std::size_t alignment) { memory.deallocate(p, size, alignment); }
};

void no_memory() {
    auto live = std::make_shared<std::atomic<long>>(0);
    auto left = std::make_shared<std::atomic<long>>(0);
    emo_status status = EMO_E_OUT_OF_MEMORY;
    long n = 0;
    for (; status == EMO_E_OUT_OF_MEMORY && n < 2000; n++) {
        *left = n;
        emo::runtime_options o;
        o.threads = 1;
        o.use_allocator(short_memory{{live}, left});
        emo::runtime rt;
        emo::mask a;
        status = code_of([&] { return emo::runtime::create(o); });
        if (status != EMO_OK)
            continue;
        *left = 1000000;
        rt = must(emo::runtime::create(o));
        const std::int32_t experts[] = {9, 9};
        a = must(emo::mask::create(rt, experts));
        *left = n;
        status = code_of([&] { return a | a; });
        if (status == EMO_OK)
            status = code_of([&] { return emo::model::create(rt, config); });
        *left = 1000000;
        CHECK(must(a | a) == a); /* everything stays usable */
    }
    CHECK(status == EMO_OK && n > 10 && *live == 0);
}

/* ---- Pools, the router alone, communicators ---- */
void routing() {
    world w = make_world();
    CHECK(must(emo::pool_policy::none(w.rt)).kind() == EMO_POOL_NONE);
    CHECK(must(emo::pool_policy::mass(w.rt, 0.5F, 3, 8)).kind() == EMO_POOL_MASS);
    CHECK(must(emo::pool_policy::scheduled(w.rt, 3, 10)).kind() == EMO_POOL_SCHEDULED);
    CHECK(must(emo::pool_policy::table(w.rt, 1, 2, {3, 4})).kind() == EMO_POOL_TABLE);
    emo::pool_policy pool = must(emo::pool_policy::parse(w.rt, "uniform:3:8"));
    CHECK(must(pool.describe()) == "uniform:3:8" && pool.scope() == EMO_POOL_SCOPE_DOCUMENT);
    MUST(pool.set_scope(EMO_POOL_SCOPE_ROW));
    MUST(pool.set_forced(1));
    MUST(pool.set_eval_pool(4));
    CHECK(code_of([&] { return emo::pool_policy::fixed(w.rt, 0); }) == EMO_E_RANGE);

    emo::router_options o;
    o.hidden = 4;
    o.experts = 9;
    o.shared = 1;
    o.top_k = 3;
    emo::router r = must(emo::router::create(w.rt, o));
    std::vector<float> weights(36);
    std::vector<float> x(20);
    for (std::size_t i = 0; i < weights.size(); i++)
        weights[i] = static_cast<float>(i % 7) * 0.1F - 0.3F;
    for (std::size_t i = 0; i < x.size(); i++)
        x[i] = static_cast<float>(i % 5) * 0.2F - 0.4F;
    MUST(r.set_weights(weights));
    CHECK(r.weights().size() == 36 && r.score_bias().empty());
    emo::router_batch batch;
    batch.rows = 1;
    batch.seq_len = 5;
    batch.x = x.data();
    const emo::routing found = must(r.forward(batch, &pool));
    CHECK(found.tokens == 5 && found.experts_of(4).size() == 3 && found.experts_of(0)[2] == 8);
    CHECK(found.weights_of(0)[2] > 0.99F && found.loss > 0.0);
    std::vector<float> dx(20);
    std::vector<float> dw(36);
    MUST(r.backward(found, {}, dx, dw));
    float moved = 0.0F;
    for (float d : dw)
        moved += std::abs(d);
    CHECK(moved > 0.0F);
    MUST(r.update_score_bias(0.1F));
    CHECK(r.score_bias().size() == 8);
    MUST(r.set_score_bias({}));
    CHECK(r.score_bias().empty());

    std::vector<emo::comm> ranks = must(emo::comm::local(w.rt, 2));
    CHECK(ranks.size() == 2 && ranks[1].rank() == 1 && ranks[0].size() == 2);
    MUST(ranks[0].set_timeout(0.01));
    double one = 1.0;
    CHECK(code_of([&] { return ranks[0].all_reduce_sum(emo::span<double>(&one, 1)); }) == EMO_E_COMM);
    emo::comm alone = must(emo::comm::single(w.rt));
    float values[] = {1.0F, 2.0F};
    MUST(alone.all_reduce_sum(values));
    MUST(alone.broadcast(values, sizeof values, 0));
    MUST(alone.barrier());
    alone.abort();
}

void errors() {
    const emo::error none;
    CHECK(none.code() == EMO_OK && std::strcmp(none.name(), "EMO_OK") == 0 && none.message()[0] == '\0');
    CHECK(std::strcmp(emo::version_string(), EMO_VERSION_STRING) == 0 && emo::version_number() >= 0);
    CHECK(std::strcmp(emo::status_name(EMO_E_IO), "EMO_E_IO") == 0 && emo::status_text(EMO_E_IO)[0] != '\0');
    CHECK(std::strcmp(emo::dtype_name(EMO_DTYPE_BF16), "bf16") == 0 && emo::isa_name(EMO_ISA_SCALAR) != nullptr);
    CHECK(emo::struct_size("emo_error") == sizeof(emo_error) && emo::struct_size("emo_none") == 0);
    emo::runtime_options o;
    o.threads = -5;
    CHECK(code_of([&] { return emo::runtime::create(o); }) == EMO_E_RANGE);
    emo::result<int> value(7);
    CHECK(value && *value == 7 && value.value_or(1) == 7 && value.code() == EMO_OK);
    const emo::result<std::string> failure(none);
    CHECK(!failure && failure.value_or("other") == "other");
}

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 2);
    errors();
    spans();
    handles();
    masks(argv[1]);
    text(argv[1]);
    models(argv[1]);
    subsets(argv[1]);
    tasks(argv[1]);
    sessions();
    serving();
    training(argv[1]);
    hooks();
    no_memory();
    routing();
    std::puts("ok");
    return 0;
}
