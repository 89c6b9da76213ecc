/* SPDX-License-Identifier: Apache-2.0 */
/** Documents and multiple-choice items. */
#ifndef EMO_CPP_DATA_HPP
#define EMO_CPP_DATA_HPP

#include <emo/cpp/tokenizer.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

struct dataset_options : options_with_progress<emo_dataset_options> {
    dataset_options() noexcept : options_with_progress(EMO_DATASET_OPTIONS_INIT) {}
};

class dataset : public handle<emo_dataset, emo_dataset_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<dataset> open(const runtime &rt, span<const char *const> paths,
                                               const tokenizer_view &t, const dataset_options &o = {}) {
        return detail::make_with<dataset>(rt, o, false, [&](emo_dataset **out, emo_error *e) {
            return emo_dataset_open(rt.get(), paths.data(), paths.size(), t.get(), &o, out, e);
        });
    }
    [[nodiscard]] static outcome<dataset> open(const runtime &rt, cstr path, const tokenizer_view &t,
                                               const dataset_options &o = {}) {
        const char *const one[] = {path.get()};
        return open(rt, span<const char *const>(one), t, o);
    }
    /** lengths: tokens of each document; domains: a name for each, or none at all. */
    [[nodiscard]] static outcome<dataset> from_tokens(const runtime &rt, span<const std::int32_t> tokens,
                                                      span<const std::size_t> lengths,
                                                      span<const char *const> domains = {}, std::int32_t eos = -1) {
        return detail::make<dataset>(rt, [&](emo_dataset **out, emo_error *e) {
            if (!domains.empty() && domains.size() != lengths.size())
                return detail::refuse(e, "there must be a domain for each document, or none");
            return emo_dataset_from_tokens(rt.get(), tokens.data(), lengths.data(),
                                           domains.empty() ? nullptr : domains.data(), lengths.size(), eos, out, e);
        });
    }
    [[nodiscard]] static outcome<dataset> from_text(const runtime &rt, const tokenizer_view &t,
                                                    span<const char *const> texts,
                                                    span<const char *const> domains = {}) {
        return detail::make<dataset>(rt, [&](emo_dataset **out, emo_error *e) {
            if (!domains.empty() && domains.size() != texts.size())
                return detail::refuse(e, "there must be a domain for each text, or none");
            return emo_dataset_from_text(rt.get(), t.get(), texts.data(), domains.empty() ? nullptr : domains.data(),
                                         texts.size(), out, e);
        });
    }
    [[nodiscard]] static outcome<dataset> from_text(const runtime &rt, const tokenizer_view &t,
                                                    span<const char *const> texts, span<const char *const> domains,
                                                    const dataset_options &o) {
        return detail::make_with<dataset>(rt, o, false, [&](emo_dataset **out, emo_error *e) {
            if (!domains.empty() && domains.size() != texts.size())
                return detail::refuse(e, "there must be a domain for each text, or none");
            return emo_dataset_from_text_with(rt.get(), t.get(), texts.data(),
                                              domains.empty() ? nullptr : domains.data(), texts.size(), &o, out, e);
        });
    }
    [[nodiscard]] static outcome<dataset> from_text(const runtime &rt, const tokenizer_view &t, cstr text) {
        const char *const one[] = {text.get()};
        return from_text(rt, t, span<const char *const>(one));
    }
    std::int64_t count() const noexcept { return emo_dataset_count(get()); }
    std::int64_t tokens() const noexcept { return emo_dataset_tokens(get()); }
    std::int64_t bytes() const noexcept { return emo_dataset_bytes(get()); }
    std::int64_t skipped() const noexcept { return emo_dataset_skipped(get()); }
    std::int32_t eos() const noexcept { return emo_dataset_eos(get()); }
    std::int32_t vocab_size() const noexcept { return emo_dataset_vocab_size(get()); }
    std::int32_t domains() const noexcept { return emo_dataset_domains(get()); }
    /** nullptr out of range. */
    const char *domain_name(std::int32_t domain) const noexcept { return emo_dataset_domain_name(get(), domain); }
    /** A view, valid while a dataset made from this lives. */
    [[nodiscard]] outcome<emo_document> document(std::int64_t index) const {
        return detail::fill(emo_document{}, [&](emo_document *out, emo_error *e) {
            return emo_dataset_document(get(), index, out, e);
        });
    }
    /** domain: nullptr for all; examples: 0 for all. */
    [[nodiscard]] outcome<dataset> filter(const char *domain, std::int64_t examples = 0, std::uint64_t seed = 0) const {
        return detail::make<dataset>(*this, [&](emo_dataset **out, emo_error *e) {
            return emo_dataset_filter(get(), domain, examples, seed, out, e);
        });
    }
};

/** Documents as text, one after the other. */
class texts : public handle<emo_texts, emo_texts_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<texts> open(const runtime &rt, span<const char *const> paths,
                                             const dataset_options &o = {}) {
        return detail::make_with<texts>(rt, o, false, [&](emo_texts **out, emo_error *e) {
            return emo_texts_open(rt.get(), paths.data(), paths.size(), &o, out, e);
        });
    }
    [[nodiscard]] static outcome<texts> open(const runtime &rt, cstr path, const dataset_options &o = {}) {
        const char *const one[] = {path.get()};
        return open(rt, span<const char *const>(one), o);
    }
    /** The next document, views valid until the next call; text is nullptr behind the last. */
    [[nodiscard]] outcome<emo_text_document> next() {
        return detail::fill(emo_text_document{},
                            [&](emo_text_document *out, emo_error *e) { return emo_texts_next(get(), out, e); });
    }
    /** For tokenizer::train(). */
    [[nodiscard]] outcome<emo_text_reader> reader() {
        return detail::fill(emo_text_reader{},
                            [&](emo_text_reader *out, emo_error *e) { return emo_texts_reader(get(), out, e); });
    }
    std::int64_t count() const noexcept { return emo_texts_count(get()); }
    std::int64_t bytes() const noexcept { return emo_texts_bytes(get()); }
    std::int64_t skipped() const noexcept { return emo_texts_skipped(get()); }
};

class choices : public handle<emo_choices, emo_choices_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<choices> open(const runtime &rt, cstr path) {
        return detail::make<choices>(
            rt, [&](emo_choices **out, emo_error *e) { return emo_choices_open(rt.get(), path.get(), out, e); });
    }
    std::int64_t count() const noexcept { return emo_choices_count(get()); }
    [[nodiscard]] outcome<emo_choice_item> item(std::int64_t index) const {
        return detail::fill(emo_choice_item{},
                            [&](emo_choice_item *out, emo_error *e) { return emo_choices_item(get(), index, out, e); });
    }
};

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
