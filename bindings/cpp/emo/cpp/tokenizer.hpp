/* SPDX-License-Identifier: Apache-2.0 */
/** Tokenizers. */
#ifndef EMO_CPP_TOKENIZER_HPP
#define EMO_CPP_TOKENIZER_HPP

#include <emo/cpp/source.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

struct encode_options : options<emo_tokenizer_encode_options> {
    encode_options() noexcept : options(EMO_TOKENIZER_ENCODE_OPTIONS_INIT) {}
};
struct decoder_options : options<emo_decoder_options> {
    decoder_options() noexcept : options(EMO_DECODER_OPTIONS_INIT) {}
};
struct tokenizer_train_options : options_with_progress<emo_tokenizer_train_options> {
    tokenizer_train_options() noexcept : options_with_progress(EMO_TOKENIZER_TRAIN_OPTIONS_INIT) {}
};

/** The calls that only read; of tokenizer and tokenizer_view. */
template <class Self>
class tokenizer_reads {
  public:
    std::int32_t vocab_size() const noexcept { return emo_tokenizer_vocab_size(raw()); }
    std::int32_t eos() const noexcept { return emo_tokenizer_eos(raw()); }
    bool is_special(std::int32_t id) const noexcept { return emo_tokenizer_is_special(raw(), id) != 0; }
    std::uint64_t hash() const noexcept { return emo_tokenizer_hash(raw()); }
    /** -1: no such token. */
    std::int32_t token_to_id(std::string_view bytes) const noexcept {
        return emo_tokenizer_token_to_id(raw(), bytes.data(), bytes.size());
    }
    /** A view of raw bytes, valid as long as the tokenizer. */
    [[nodiscard]] outcome<std::string_view> id_to_token(std::int32_t id) const {
        return detail::fill(std::string_view(), [&](std::string_view *out, emo_error *e) {
            const char *bytes = nullptr;
            std::size_t length = 0;
            const emo_status status = emo_tokenizer_id_to_token(raw(), id, &bytes, &length, e);
            if (status == EMO_OK)
                *out = std::string_view(bytes, length);
            return status;
        });
    }
    [[nodiscard]] outcome<std::vector<std::int32_t>> encode(std::string_view text) const {
        return detail::gather<std::vector<std::int32_t>>(
            [&](std::int32_t *ids, std::size_t capacity, std::size_t *count, emo_error *e) {
                return emo_tokenizer_encode(raw(), text.data(), text.size(), ids, capacity, count, e);
            });
    }
    [[nodiscard]] outcome<std::vector<std::int32_t>> encode(std::string_view text, const encode_options &o) const {
        return detail::gather<std::vector<std::int32_t>>(
            [&](std::int32_t *ids, std::size_t capacity, std::size_t *count, emo_error *e) {
                return emo_tokenizer_encode_with(raw(), &o, text.data(), text.size(), ids, capacity, count, e);
            });
    }
    [[nodiscard]] outcome<std::string> decode(span<const std::int32_t> ids) const {
        return detail::gather<std::string>([&](char *out, std::size_t capacity, std::size_t *size, emo_error *e) {
            return emo_tokenizer_decode(raw(), ids.data(), ids.size(), out, capacity, size, e);
        });
    }
    [[nodiscard]] outcome<std::string> to_json() const {
        return detail::gather<std::string>([&](char *out, std::size_t capacity, std::size_t *size, emo_error *e) {
            return emo_tokenizer_to_json(raw(), out, capacity, size, e);
        });
    }
    outcome<void> save(cstr path) const {
        return detail::run([&](emo_error *e) { return emo_tokenizer_save(raw(), path.get(), e); });
    }

  private:
    const emo_tokenizer *raw() const noexcept { return static_cast<const Self *>(this)->get(); }
};

class tokenizer : public handle<emo_tokenizer, emo_tokenizer_release>, public tokenizer_reads<tokenizer> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<tokenizer> bytes(const runtime &rt) {
        return detail::make<tokenizer>(
            rt, [&](emo_tokenizer **out, emo_error *e) { return emo_tokenizer_create_bytes(rt.get(), out, e); });
    }
    [[nodiscard]] static outcome<tokenizer> load(const runtime &rt, cstr path) {
        return detail::make<tokenizer>(
            rt, [&](emo_tokenizer **out, emo_error *e) { return emo_tokenizer_load(rt.get(), path.get(), out, e); });
    }
    [[nodiscard]] static outcome<tokenizer> load(const runtime &rt, const source &from) {
        return detail::make<tokenizer>(rt, [&](emo_tokenizer **out, emo_error *e) {
            return emo_tokenizer_load_source(rt.get(), from.get(), out, e);
        });
    }
    [[nodiscard]] static outcome<tokenizer> from_json(const runtime &rt, std::string_view text) {
        return detail::make<tokenizer>(rt, [&](emo_tokenizer **out, emo_error *e) {
            return emo_tokenizer_from_json(rt.get(), text.data(), text.size(), out, e);
        });
    }
    /** From the reader of the C API, such as texts::reader(). */
    [[nodiscard]] static outcome<tokenizer> train(const runtime &rt, const tokenizer_train_options &o,
                                                  const emo_text_reader &reader) {
        return detail::make_with<tokenizer>(rt, o, false, [&](emo_tokenizer **out, emo_error *e) {
            return emo_tokenizer_train(rt.get(), &o, &reader, out, e);
        });
    }
    /** next() -> std::optional<std::string_view>, empty behind the last text. */
    template <class F, class = std::invoke_result_t<F &>>
    [[nodiscard]] static outcome<tokenizer> train(const runtime &rt, tokenizer_train_options o, F &&next) {
        struct context {
            std::remove_reference_t<F> *next;
            detail::hook_set *hooks;
        } ctx{&next, nullptr};
        o.on_progress(progress_through{o.progress}); /* so that there is a place for what `next` throws */
        ctx.hooks = o.hooks();
        emo_text_reader reader = {&ctx, [](void *opaque, const char **text, std::size_t *length) -> std::int32_t {
                                      auto *c = static_cast<context *>(opaque);
                                      return detail::shielded_by(c->hooks, std::int32_t{EMO_E_CANCELLED}, [&] {
                                          const std::optional<std::string_view> got = (*c->next)();
                                          *text = got ? got->data() : nullptr;
                                          *length = got ? got->size() : 0;
                                          return std::int32_t{got ? 1 : 0};
                                      });
                                  }};
        return train(rt, o, reader);
    }
    outcome<void> set_eos(std::int32_t id) {
        return detail::run([&](emo_error *e) { return emo_tokenizer_set_eos(get(), id, e); });
    }

  private:
    struct progress_through {
        emo_progress inner;
        bool operator()(const emo_progress_info &info) const {
            return inner.report != nullptr && inner.report(inner.ctx, &info) != 0;
        }
    };
};

/** A tokenizer that belongs to somebody else, such as a model's. Empty where there is none. */
class tokenizer_view : public tokenizer_reads<tokenizer_view> {
  public:
    tokenizer_view() noexcept = default;
    tokenizer_view(const tokenizer &of) noexcept : raw_(of.get()), runtime_(of.runtime_hooks()) {}
    tokenizer_view(const emo_tokenizer *raw, detail::ref<detail::hook_set> rt) noexcept
        : raw_(raw), runtime_(std::move(rt)) {}
    const emo_tokenizer *get() const noexcept { return raw_; }
    explicit operator bool() const noexcept { return raw_ != nullptr; }
    const detail::ref<detail::hook_set> &runtime_hooks() const noexcept { return runtime_; }

  private:
    const emo_tokenizer *raw_ = nullptr;
    detail::ref<detail::hook_set> runtime_;
};

/** Turns ids into text one at a time. Views are valid until the next call. */
class decoder : public handle<emo_decoder, emo_decoder_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<decoder> create(const tokenizer_view &t, const decoder_options &o = {}) {
        return detail::make<decoder>(
            t, [&](emo_decoder **out, emo_error *e) { return emo_decoder_create(t.get(), &o, out, e); });
    }
    [[nodiscard]] outcome<std::string_view> push(std::int32_t id) {
        return text([&](const char **t, std::size_t *n, emo_error *e) { return emo_decoder_push(get(), id, t, n, e); });
    }
    [[nodiscard]] outcome<std::string_view> flush() {
        return text([&](const char **t, std::size_t *n, emo_error *e) { return emo_decoder_flush(get(), t, n, e); });
    }

  private:
    template <class F>
    outcome<std::string_view> text(F &&call) {
        return detail::fill(std::string_view(), [&](std::string_view *out, emo_error *e) {
            const char *bytes = nullptr;
            std::size_t length = 0;
            const emo_status status = call(&bytes, &length, e);
            if (status == EMO_OK)
                *out = std::string_view(bytes, length);
            return status;
        });
    }
};

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
