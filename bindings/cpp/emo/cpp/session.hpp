/* SPDX-License-Identifier: Apache-2.0 */
/** Inference: sessions, and generated text as a range. */
#ifndef EMO_CPP_SESSION_HPP
#define EMO_CPP_SESSION_HPP

#include <emo/cpp/model.hpp>
#include <emo/cpp/pool.hpp>

#include <iterator>

namespace emo {
inline namespace EMO_CPP_MODE {

struct session_options : options_with_progress<emo_session_options> {
    session_options() noexcept : options_with_progress(EMO_SESSION_OPTIONS_INIT) {}
    /** Stop strings; borrowed until the session is made. */
    void set_stop(span<const char *const> strings) noexcept {
        stop = strings.data();
        n_stop = strings.size();
    }
};

/** What a sequence has of its own. */
struct sequence_options : emo_sequence_options {
    sequence_options() noexcept : emo_sequence_options(EMO_SEQUENCE_OPTIONS_INIT) {}
};
struct session_statistics : emo_session_statistics {
    session_statistics() noexcept : emo_session_statistics(EMO_SESSION_STATISTICS_INIT) {}
};

struct generated_tokens {
    span<const std::int32_t> tokens;
    span<const float> logprobs;
};

class generation;

class session : public handle<emo_session, emo_session_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<session> create(model &m, const session_options &o = {}) {
        emo_model_info info = EMO_MODEL_INFO_INIT;
        outcome<session> made = detail::make_with<session>(m, o, true, [&](emo_session **out, emo_error *e) {
            const emo_status status = emo_model_get_info(m.get(), &info, e);
            return status == EMO_OK ? emo_session_create(m.get(), &o, out, e) : status;
        });
#if EMO_CPP_EXCEPTIONS
        made.vocab_ = info.vocab;
#else
        if (made)
            made->vocab_ = info.vocab;
#endif
        return made;
    }
    outcome<void> append(cstr text) {
        return detail::run([&](emo_error *e) { return emo_session_append_text(get(), text.get(), e); });
    }
    outcome<void> append(std::int32_t sequence, span<const std::int32_t> tokens) {
        return detail::run(
            [&](emo_error *e) { return emo_session_append_tokens(get(), sequence, tokens.data(), tokens.size(), e); });
    }
    outcome<void> append_to(std::int32_t sequence, cstr text) {
        return detail::run([&](emo_error *e) { return emo_session_append_text_to(get(), sequence, text.get(), e); });
    }
    /** Takes a free sequence, with options of its own or the session's; its number. */
    [[nodiscard]] outcome<std::int32_t> add(const sequence_options &o) { return take(&o); }
    [[nodiscard]] outcome<std::int32_t> add() { return take(nullptr); }
    outcome<void> cancel(std::int32_t sequence) {
        return detail::run([&](emo_error *e) { return emo_session_cancel(get(), sequence, e); });
    }
    /** Forgets a sequence, which is free then. */
    outcome<void> remove(std::int32_t sequence) {
        return detail::run([&](emo_error *e) { return emo_session_remove(get(), sequence, e); });
    }
    [[nodiscard]] outcome<session_statistics> statistics() const {
        return detail::fill(session_statistics(), [&](session_statistics *out, emo_error *e) {
            return emo_session_get_statistics(get(), out, e);
        });
    }
    [[nodiscard]] outcome<emo_state> advance(const emo_budget &budget = emo_budget_unlimited()) {
        return detail::fill(
            emo_state{EMO_STATE_PENDING},
            [&](emo_state *state, emo_error *e) { return emo_session_advance(get(), &budget, state, e); }, own_hooks());
    }
    /** Text that is new since the last advance, valid until the next call that is not const. */
    std::string_view text() const noexcept { return emo_session_text(get()); }
    std::string_view text(std::int32_t sequence) const noexcept { return emo_session_text_of(get(), sequence); }
    generated_tokens generated(std::int32_t sequence = 0) const noexcept {
        const std::int32_t *tokens = nullptr;
        const float *logprobs = nullptr;
        const std::size_t n = emo_session_generated(get(), sequence, &tokens, &logprobs);
        return {{tokens, n}, {logprobs, n}};
    }
    std::int64_t replayed() const noexcept { return emo_session_replayed(get()); }
    emo_stop_reason stop_reason(std::int32_t sequence = 0) const noexcept {
        return emo_session_stop_reason(get(), sequence);
    }
    outcome<void> logits(std::int32_t sequence, span<float> out) const {
        return detail::run(
            [&](emo_error *e) { return emo_session_logits(get(), sequence, out.data(), out.size(), e); });
    }
    [[nodiscard]] outcome<std::vector<float>> logits(std::int32_t sequence = 0) const {
        return detail::fill(std::vector<float>(static_cast<std::size_t>(vocab_)),
                            [&](std::vector<float> *out, emo_error *e) {
                                return emo_session_logits(get(), sequence, out->data(), out->size(), e);
                            });
    }
    /** The experts a sequence may use. */
    [[nodiscard]] outcome<mask> pool(std::int32_t sequence = 0) const {
        return detail::make<mask>(
            *this, [&](emo_mask **out, emo_error *e) { return emo_session_pool(get(), sequence, out, e); });
    }
    outcome<void> restart() {
        return detail::run([&](emo_error *e) { return emo_session_reset(get(), e); });
    }
    /** for (std::string_view piece : session.generate()) ... */
    inline generation generate(const emo_budget &budget = emo_budget_unlimited()) noexcept;

  private:
    outcome<std::int32_t> take(const emo_sequence_options *o) {
        return detail::fill(std::int32_t{-1}, [&](std::int32_t *sequence, emo_error *e) {
            return emo_session_add(get(), o, sequence, e);
        });
    }
    std::int32_t vocab_ = 0;
};

/**
 * The pieces of text of sequence 0 until it stops; with a budget some are empty. Where failures are returned the range
 * ends with one, and code() and error() say so.
 */
class generation {
  public:
    class iterator {
      public:
        using iterator_category = std::input_iterator_tag;
        using value_type = std::string_view;
        using difference_type = std::ptrdiff_t;
        using pointer = const std::string_view *;
        using reference = std::string_view;
        iterator() noexcept = default;
        explicit iterator(generation *of) : of_(of) { step(); }
        std::string_view operator*() const noexcept { return of_->piece_; }
        iterator &operator++() {
            step();
            return *this;
        }
        void operator++(int) { step(); }
        bool operator==(const iterator &other) const noexcept { return of_ == other.of_; }
        bool operator!=(const iterator &other) const noexcept { return of_ != other.of_; }

      private:
        void step() {
            if (!of_->next())
                of_ = nullptr;
        }
        generation *of_ = nullptr;
    };

    generation(session &s, const emo_budget &budget) noexcept : session_(&s), budget_(budget) {}
    iterator begin() { return iterator(this); }
    iterator end() noexcept { return {}; }
    const emo::error &error() const noexcept { return error_; }
    emo_status code() const noexcept { return error_.code(); }

  private:
    friend class iterator;
    /** The next piece; false behind the last. */
    bool next() {
        while (!done_) {
            emo_state state = EMO_STATE_DONE;
#if EMO_CPP_EXCEPTIONS
            state = session_->advance(budget_);
#else
            result<emo_state> got = session_->advance(budget_);
            if (!got) {
                error_ = got.error();
                done_ = true;
                return false;
            }
            state = *got;
#endif
            done_ = state == EMO_STATE_DONE;
            piece_ = session_->text();
            if (!piece_.empty() || state == EMO_STATE_PENDING)
                return true;
        }
        return false;
    }
    session *session_;
    emo_budget budget_;
    std::string_view piece_;
    emo::error error_;
    bool done_ = false;
};
inline generation session::generate(const emo_budget &budget) noexcept { return generation(*this, budget); }

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
