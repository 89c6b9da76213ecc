/* SPDX-License-Identifier: Apache-2.0 */
/** Models: create, load, save, prune, merge, export. */
#ifndef EMO_CPP_MODEL_HPP
#define EMO_CPP_MODEL_HPP

#include <emo/cpp/mask.hpp>
#include <emo/cpp/tokenizer.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

struct model_create_options : options<emo_model_create_options> {
    model_create_options() noexcept : options(EMO_MODEL_CREATE_OPTIONS_INIT) {}
};
struct model_load_options : options_with_progress<emo_model_load_options> {
    model_load_options() noexcept : options_with_progress(EMO_MODEL_LOAD_OPTIONS_INIT) {}
};
struct model_save_options : options_with_progress<emo_model_save_options> {
    model_save_options() noexcept : options_with_progress(EMO_MODEL_SAVE_OPTIONS_INIT) {}
};
struct prune_options : options_with_progress<emo_prune_options> {
    prune_options() noexcept : options_with_progress(EMO_PRUNE_OPTIONS_INIT) {}
};
struct merge_options : options_with_progress<emo_merge_options> {
    merge_options() noexcept : options_with_progress(EMO_MERGE_OPTIONS_INIT) {}
};
struct export_options : options_with_progress<emo_export_options> {
    export_options() noexcept : options_with_progress(EMO_EXPORT_OPTIONS_INIT) {}
};
struct model_info : emo_model_info {
    model_info() noexcept : emo_model_info(EMO_MODEL_INFO_INIT) {}
};
struct cache_stats : emo_cache_stats {
    cache_stats() noexcept : emo_cache_stats(EMO_CACHE_STATS_INIT) {}
};
struct export_info : emo_export_info {
    export_info() noexcept : emo_export_info(EMO_EXPORT_INFO_INIT) {}
};

class model : public handle<emo_model, emo_model_release> {
  public:
    using handle::handle;
    /** Random weights, from the text of a config.json. */
    [[nodiscard]] static outcome<model> create(const runtime &rt, std::string_view config,
                                               const model_create_options &o = {}) {
        return detail::make<model>(rt, [&](emo_model **out, emo_error *e) {
            return emo_model_create_json(rt.get(), config.data(), config.size(), &o, out, e);
        });
    }
    /** A folder or a GGUF file. */
    [[nodiscard]] static outcome<model> load(const runtime &rt, cstr path, const model_load_options &o = {}) {
        return detail::make_with<model>(rt, o, false, [&](emo_model **out, emo_error *e) {
            return emo_model_load_path(rt.get(), path.get(), &o, out, e);
        });
    }
    /** From sources: the text of config.json (empty: one GGUF file) and the files of the weights. */
    [[nodiscard]] static outcome<model> load(const runtime &rt, std::string_view config, span<const source> weights,
                                             const model_load_options &o = {}) {
        std::vector<emo_source *> raw;
        raw.reserve(weights.size());
        for (const source &s : weights)
            raw.push_back(s.get());
        return detail::make_with<model>(rt, o, false, [&](emo_model **out, emo_error *e) {
            return emo_model_load_sources(rt.get(), config.empty() ? nullptr : config.data(), config.size(), raw.data(),
                                          raw.size(), &o, out, e);
        });
    }
    [[nodiscard]] outcome<model_info> info() const {
        return detail::fill(model_info(),
                            [&](model_info *out, emo_error *e) { return emo_model_get_info(get(), out, e); });
    }
    /** What a model of that configuration would be. */
    [[nodiscard]] static outcome<model_info> info_of(const runtime &rt, std::string_view config) {
        return detail::fill(model_info(), [&](model_info *out, emo_error *e) {
            return emo_model_info_json(rt.get(), config.data(), config.size(), out, e);
        });
    }
    /** What the expert cache did; all zero without a memory budget. */
    [[nodiscard]] outcome<emo::cache_stats> cache_stats() const {
        return detail::fill(emo::cache_stats(), [&](emo::cache_stats *out, emo_error *e) {
            return emo_model_get_cache_stats(get(), out, e);
        });
    }
    std::int32_t experts(std::int32_t layer) const noexcept { return emo_model_experts(get(), layer); }
    std::int32_t shared(std::int32_t layer) const noexcept { return emo_model_shared(get(), layer); }
    std::int32_t original_expert(std::int32_t layer, std::int32_t expert) const noexcept {
        return emo_model_original_expert(get(), layer, expert);
    }
    [[nodiscard]] outcome<std::string> config_json() const {
        return detail::gather<std::string>(
            [&](char *out, std::size_t capacity, std::size_t *size, emo_error *e) {
                return emo_model_config_json(get(), out, capacity, size, e);
            },
            1); /* room for the NUL, which the size does not count */
    }
    /** Borrowed: until another one is attached or the model goes. */
    emo::tokenizer_view tokenizer() const noexcept {
        return emo::tokenizer_view(emo_model_tokenizer(get()), runtime_hooks());
    }
    outcome<void> set_tokenizer(emo::tokenizer &t) {
        return detail::run([&](emo_error *e) { return emo_model_set_tokenizer(get(), t.get(), e); });
    }
    outcome<void> remove_tokenizer() {
        return detail::run([&](emo_error *e) { return emo_model_set_tokenizer(get(), nullptr, e); });
    }
    /** "cpu", "cuda", "cuda:1" ...; where sessions and trainers made from now on run. */
    outcome<void> to_device(cstr device) {
        return detail::run([&](emo_error *e) { return emo_model_to_device(get(), device.get(), e); });
    }
    /** What products are computed in: EMO_DTYPE_F32 or EMO_DTYPE_BF16. */
    outcome<void> set_compute(emo_dtype compute) {
        return detail::run([&](emo_error *e) { return emo_model_set_compute(get(), compute, e); });
    }
    emo_dtype compute() const noexcept { return emo_model_compute(get()); }
    /** Every expert that is loaded. */
    [[nodiscard]] outcome<emo::mask> mask() const {
        return detail::make<emo::mask>(*this,
                                       [&](emo_mask **out, emo_error *e) { return emo_model_mask(get(), out, e); });
    }
    /** A copy of one tensor, row-major. */
    [[nodiscard]] outcome<std::vector<float>> tensor(cstr name) const {
        return detail::gather<std::vector<float>>(
            [&](float *out, std::size_t capacity, std::size_t *count, emo_error *e) {
                return emo_model_tensor_f32(get(), name.get(), out, capacity, count, e);
            });
    }
    /** The same into memory of the caller's; the number of elements. */
    [[nodiscard]] outcome<std::size_t> tensor(cstr name, span<float> out) const {
        return detail::fill(std::size_t{0}, [&](std::size_t *count, emo_error *e) {
            return emo_model_tensor_f32(get(), name.get(), out.data(), out.size(), count, e);
        });
    }
    outcome<void> save(cstr folder, const model_save_options &o = {}) const {
        return detail::run_with(o, [&](emo_error *e) { return emo_model_save(get(), folder.get(), &o, e); });
    }
    [[nodiscard]] outcome<model> prune(const emo::mask &keep, const prune_options &o = {}) const {
        return detail::make_with<model>(*this, o, false, [&](emo_model **out, emo_error *e) {
            return emo_model_prune(get(), keep.get(), &o, out, e);
        });
    }
    /** By the lists of ids in the options instead of a mask. */
    [[nodiscard]] outcome<model> prune(const prune_options &o) const { return prune(emo::mask(), o); }
    /** The experts of a pruned child back to where they were, in a copy of this. */
    [[nodiscard]] outcome<model> merge(const model &child, const merge_options &o = {}) const {
        return detail::make_with<model>(*this, o, false, [&](emo_model **out, emo_error *e) {
            return emo_model_merge(get(), child.get(), &o, out, e);
        });
    }
    outcome<export_info> export_to(cstr path, const export_options &o = {}) const {
        return detail::fill_with(o, export_info(), [&](export_info *info, emo_error *e) {
            return emo_model_export(get(), path.get(), &o, info, e);
        });
    }
};

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
