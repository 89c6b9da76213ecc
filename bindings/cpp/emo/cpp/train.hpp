/* SPDX-License-Identifier: Apache-2.0 */
/** Training. */
#ifndef EMO_CPP_TRAIN_HPP
#define EMO_CPP_TRAIN_HPP

#include <emo/cpp/comm.hpp>
#include <emo/cpp/data.hpp>
#include <emo/cpp/model.hpp>
#include <emo/cpp/pool.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

class train_options : public options_with_progress<emo_train_options> {
  public:
    train_options() noexcept : options_with_progress(EMO_TRAIN_OPTIONS_INIT) {}
    /** f(const emo_step_metrics &) after each step; returns nothing, or true to stop. */
    template <class F>
    void each_step(F &&f) {
        using Fn = std::decay_t<F>;
        auto *b = hold_hook(std::forward<F>(f));
        on_step_ctx = b;
        on_step = b == nullptr ? nullptr : +[](void *ctx, const emo_step_metrics *metrics) -> std::int32_t {
            return detail::call_cancellable<Fn>(ctx, *metrics);
        };
    }
};

struct step_metrics : emo_step_metrics {
    step_metrics() noexcept : emo_step_metrics{} { struct_size = sizeof(emo_step_metrics); }
};
struct train_profile_entry : emo_train_profile_entry {
    train_profile_entry() noexcept : emo_train_profile_entry(EMO_TRAIN_PROFILE_ENTRY_INIT) {}
};
struct train_plan_options : options<emo_train_plan_options> {
    train_plan_options() noexcept : options(EMO_TRAIN_PLAN_OPTIONS_INIT) {}
};
struct train_plan : emo_train_plan {
    train_plan() noexcept : emo_train_plan(EMO_TRAIN_PLAN_INIT) {}
};
/** The memory that training a model of that configuration takes. */
[[nodiscard]] inline outcome<train_plan> plan_training(const runtime &rt, std::string_view config,
                                                       const train_options &o = {},
                                                       const train_plan_options &how = {}) {
    return detail::fill(train_plan(), [&](train_plan *out, emo_error *e) {
        return emo_train_plan_json(rt.get(), config.data(), config.size(), &o, &how, out, e);
    });
}
/** nullptr for a number that is none. */
inline const char *train_part_name(emo_train_part part) noexcept { return emo_train_part_name(part); }

class trainer : public handle<emo_trainer, emo_trainer_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<trainer> create(model &m, const dataset &data, const train_options &o) {
        return detail::make_with<trainer>(m, o, true, [&](emo_trainer **out, emo_error *e) {
            return emo_trainer_create(m.get(), data.get(), &o, out, e);
        });
    }
    /** Until the end. */
    outcome<void> run() {
        return detail::run([&](emo_error *e) { return emo_trainer_run(get(), e); }, own_hooks());
    }
    outcome<step_metrics> step() {
        return detail::fill(
            step_metrics(), [&](step_metrics *out, emo_error *e) { return emo_trainer_step(get(), out, e); },
            own_hooks());
    }
    outcome<void> checkpoint() {
        return detail::run([&](emo_error *e) { return emo_trainer_checkpoint(get(), e); }, own_hooks());
    }
    std::int64_t at() const noexcept { return emo_trainer_at(get()); }
    std::int64_t steps() const noexcept { return emo_trainer_steps(get()); }
    std::int64_t replayed() const noexcept { return emo_trainer_replayed(get()); }
    /** Where the time went, with train_options.profile. */
    [[nodiscard]] outcome<std::vector<train_profile_entry>> profile() const {
        return detail::fill(std::vector<train_profile_entry>(),
                            [&](std::vector<train_profile_entry> *out, emo_error *e) {
                                for (std::size_t i = 0;; i++) {
                                    train_profile_entry entry;
                                    const emo_status status = emo_trainer_profile(get(), i, &entry, e);
                                    if (status != EMO_OK)
                                        return status == EMO_E_NOT_FOUND ? emo_status{EMO_OK} : status;
                                    out->push_back(entry);
                                }
                            });
    }
};

/** The learning rate of a step, from 1, under options with max_steps set. */
[[nodiscard]] inline outcome<double> schedule_lr(const train_options &o, std::int64_t step) {
    return detail::fill(0.0, [&](double *lr, emo_error *e) { return emo_schedule_lr(&o, step, lr, e); });
}

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
