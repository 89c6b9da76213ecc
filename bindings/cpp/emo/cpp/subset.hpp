/* SPDX-License-Identifier: Apache-2.0 */
/** Choosing experts and measuring: statistics, selection, evaluation. */
#ifndef EMO_CPP_SUBSET_HPP
#define EMO_CPP_SUBSET_HPP

#include <emo/cpp/data.hpp>
#include <emo/cpp/model.hpp>
#include <emo/cpp/pool.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

struct stats_options : options_with_progress<emo_stats_options> {
    stats_options() noexcept : options_with_progress(EMO_STATS_OPTIONS_INIT) {}
};
struct select_options : options_with_progress<emo_select_options> {
    select_options() noexcept : options_with_progress(EMO_SELECT_OPTIONS_INIT) {}
};
struct eval_options : options_with_progress<emo_eval_options> {
    eval_options() noexcept : options_with_progress(EMO_EVAL_OPTIONS_INIT) {}
};

class stats : public handle<emo_stats, emo_stats_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<stats> collect(model &m, const dataset &documents, const stats_options &o = {}) {
        return detail::make_with<stats>(m, o, false, [&](emo_stats **out, emo_error *e) {
            return emo_stats_collect(m.get(), documents.get(), &o, out, e);
        });
    }
    [[nodiscard]] static outcome<stats> load(const runtime &rt, cstr path) {
        return detail::make<stats>(
            rt, [&](emo_stats **out, emo_error *e) { return emo_stats_load(rt.get(), path.get(), out, e); });
    }
    /** Those of both sets of documents together. */
    [[nodiscard]] outcome<stats> merge(const stats &other) const {
        return detail::make<stats>(
            *this, [&](emo_stats **out, emo_error *e) { return emo_stats_merge(get(), other.get(), out, e); });
    }
    std::int64_t tokens() const noexcept { return emo_stats_tokens(get()); }
    std::int32_t layers() const noexcept { return emo_stats_layers(get()); }
    /** Mean router probability of each expert of a layer. */
    [[nodiscard]] outcome<std::vector<double>> probs(std::int32_t layer) const {
        return detail::gather<std::vector<double>>(
            [&](double *out, std::size_t capacity, std::size_t *count, emo_error *e) {
                return emo_stats_probs(get(), layer, out, capacity, count, e);
            });
    }
    [[nodiscard]] outcome<std::vector<double>> easy_ep(std::int32_t layer) const {
        return detail::gather<std::vector<double>>(
            [&](double *out, std::size_t capacity, std::size_t *count, emo_error *e) {
                return emo_stats_easy_ep(get(), layer, out, capacity, count, e);
            });
    }
    outcome<void> save(cstr path) const {
        return detail::run([&](emo_error *e) { return emo_stats_save(get(), path.get(), e); });
    }
};

/** A mask of o.keep experts per layer for a few documents. */
[[nodiscard]] inline outcome<mask> select(model &m, const dataset &calibration, const select_options &o) {
    return detail::make_with<mask>(
        m, o, false, [&](emo_mask **out, emo_error *e) { return emo_select(m.get(), calibration.get(), &o, out, e); });
}
/** The same for one text, with the model's tokenizer; `rt` is any runtime. */
[[nodiscard]] inline outcome<mask> select(const runtime &rt, model &m, cstr text, const select_options &o) {
    emo_dataset *document = nullptr;
    const char *const one = text.get();
    outcome<mask> chosen = detail::make_with<mask>(m, o, false, [&](emo_mask **out, emo_error *e) {
        emo_status status =
            emo_dataset_from_text(rt.get(), emo_model_tokenizer(m.get()), &one, nullptr, 1, &document, e);
        if (status == EMO_OK)
            status = emo_select(m.get(), document, &o, out, e);
        emo_dataset_release(document);
        return status;
    });
    return chosen;
}
/** From statistics collected before. */
[[nodiscard]] inline outcome<mask> select(const model &m, const stats &s, const select_options &o) {
    return detail::make_with<mask>(
        m, o, false, [&](emo_mask **out, emo_error *e) { return emo_select_from_stats(m.get(), s.get(), &o, out, e); });
}

/** Lists of ids, layer after layer, for prune_options.keep and keep_offsets. */
struct expert_lists {
    std::vector<std::int32_t> ids;
    std::vector<std::int32_t> offsets; /**< [layers + 1] */
};
[[nodiscard]] inline outcome<expert_lists> select_experts(model &m, const dataset &calibration,
                                                          const select_options &o) {
    return detail::fill_with(o, expert_lists(), [&](expert_lists *out, emo_error *e) {
        emo_model_info info = EMO_MODEL_INFO_INIT;
        emo_status status = emo_model_get_info(m.get(), &info, e);
        if (status != EMO_OK)
            return status;
        std::size_t count = 0;
        out->offsets.resize(static_cast<std::size_t>(info.layers) + 1);
        status = emo_select_experts(m.get(), calibration.get(), &o, nullptr, 0, &count, out->offsets.data(), e);
        if (status != EMO_OK)
            return status;
        out->ids.resize(count);
        return emo_select_experts(m.get(), calibration.get(), &o, out->ids.data(), count, &count, out->offsets.data(),
                                  e);
    });
}

struct documents_result {
    emo_eval_result total{};
    std::vector<emo_eval_result> per_domain;
    std::vector<emo_eval_result> per_document;
};
/** Loss on documents. */
[[nodiscard]] inline outcome<documents_result> evaluate(model &m, const dataset &documents,
                                                        const eval_options &o = {}) {
    documents_result sums;
    sums.per_domain.resize(static_cast<std::size_t>(documents.domains()));
    sums.per_document.resize(static_cast<std::size_t>(documents.count()));
    return detail::fill_with(o, std::move(sums), [&](documents_result *out, emo_error *e) {
        return emo_eval_documents(m.get(), documents.get(), &o, &out->total, out->per_domain.data(),
                                  out->per_document.data(), e);
    });
}
struct choices_result {
    emo_eval_result total{};
    std::vector<std::int32_t> answers;
};
/** Accuracy on multiple-choice items. */
[[nodiscard]] inline outcome<choices_result> evaluate(model &m, const choices &items, const eval_options &o = {}) {
    choices_result sums;
    sums.answers.resize(static_cast<std::size_t>(items.count()));
    return detail::fill_with(o, std::move(sums), [&](choices_result *out, emo_error *e) {
        return emo_eval_choices(m.get(), items.get(), &o, &out->total, out->answers.data(), e);
    });
}
/** Logits of every position: out [tokens, vocab]. */
inline outcome<void> logits(model &m, span<const std::int32_t> tokens, span<float> out, const eval_options &o = {}) {
    return detail::run_with(o, [&](emo_error *e) {
        return emo_eval_logits(m.get(), tokens.data(), tokens.size(), &o, out.data(), out.size(), e);
    });
}

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
