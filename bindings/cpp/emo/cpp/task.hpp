/* SPDX-License-Identifier: Apache-2.0 */
/** Evaluation by task. */
#ifndef EMO_CPP_TASK_HPP
#define EMO_CPP_TASK_HPP

#include <emo/cpp/model.hpp>

namespace emo {
inline namespace EMO_CPP_MODE {

struct task_set_options : options_with_progress<emo_task_set_options> {
    task_set_options() noexcept : options_with_progress(EMO_TASK_SET_OPTIONS_INIT) {}
};
struct task_run_options : options_with_progress<emo_task_run_options> {
    task_run_options() noexcept : options_with_progress(EMO_TASK_RUN_OPTIONS_INIT) {}
};

/** Tasks with their items. Views in what it returns are valid while it lives. */
class task_set : public handle<emo_task_set, emo_task_set_release> {
  public:
    using handle::handle;
    [[nodiscard]] static outcome<task_set> open(const runtime &rt, cstr path, const task_set_options &o = {}) {
        return detail::make_with<task_set>(rt, o, false, [&](emo_task_set **out, emo_error *e) {
            return emo_task_set_open(rt.get(), path.get(), &o, out, e);
        });
    }
    [[nodiscard]] static outcome<task_set> from_json(const runtime &rt, std::string_view text,
                                                     const task_set_options &o = {}) {
        return detail::make_with<task_set>(rt, o, false, [&](emo_task_set **out, emo_error *e) {
            return emo_task_set_from_json(rt.get(), text.data(), text.size(), &o, out, e);
        });
    }
    std::int32_t tasks() const noexcept { return emo_task_set_tasks(get()); }
    std::int32_t groups() const noexcept { return emo_task_set_groups(get()); }
    [[nodiscard]] outcome<emo_task_info> task(std::int32_t index) const {
        return detail::fill(emo_task_info{},
                            [&](emo_task_info *out, emo_error *e) { return emo_task_set_task(get(), index, out, e); });
    }
    [[nodiscard]] outcome<emo_task_group> group(std::int32_t index) const {
        return detail::fill(emo_task_group{}, [&](emo_task_group *out, emo_error *e) {
            return emo_task_set_group(get(), index, out, e);
        });
    }
    /** nullptr out of range. */
    const char *metric(std::int32_t task, std::int32_t index) const noexcept {
        return emo_task_set_metric(get(), task, index);
    }
    /** The text in front of what is scored or generated. */
    [[nodiscard]] outcome<std::string> prompt(std::int32_t task, std::int64_t item, std::int32_t choice = 0) const {
        return text_of([&](char *out, std::size_t capacity, std::size_t *size, emo_error *e) {
            return emo_task_set_prompt(get(), task, item, choice, out, capacity, size, e);
        });
    }
    /** The text that is scored after it. */
    [[nodiscard]] outcome<std::string> continuation(std::int32_t task, std::int64_t item,
                                                    std::int32_t choice = 0) const {
        return text_of([&](char *out, std::size_t capacity, std::size_t *size, emo_error *e) {
            return emo_task_set_continuation(get(), task, item, choice, out, capacity, size, e);
        });
    }

  private:
    template <class F>
    static outcome<std::string> text_of(F &&call) {
        return detail::gather<std::string>([&](char *out, std::size_t capacity, std::size_t *size, emo_error *e) {
            const emo_status status = call(out, capacity, size, e);
            if (status == EMO_OK && capacity > 0)
                *size -= 1; /* the NUL is the string's own business */
            return status;
        });
    }
};

/** Scores of a run. Views in what it returns are valid while it lives. */
class task_results : public handle<emo_task_results, emo_task_results_release> {
  public:
    using handle::handle;
    std::int32_t columns() const noexcept { return emo_task_results_columns(get()); }
    [[nodiscard]] outcome<emo_task_column> column(std::int32_t index) const {
        return detail::fill(emo_task_column{}, [&](emo_task_column *out, emo_error *e) {
            return emo_task_results_column(get(), index, out, e);
        });
    }
    [[nodiscard]] outcome<emo_task_score> score(std::int32_t task, std::int32_t column, std::int32_t metric = 0) const {
        return detail::fill(emo_task_score{}, [&](emo_task_score *out, emo_error *e) {
            return emo_task_results_score(get(), task, column, metric, out, e);
        });
    }
    [[nodiscard]] outcome<emo_task_score> group(std::int32_t group, std::int32_t column) const {
        return detail::fill(emo_task_score{}, [&](emo_task_score *out, emo_error *e) {
            return emo_task_results_group(get(), group, column, out, e);
        });
    }
    [[nodiscard]] outcome<emo_task_item> item(std::int32_t task, std::int32_t column, std::int64_t index) const {
        return detail::fill(emo_task_item{}, [&](emo_task_item *out, emo_error *e) {
            return emo_task_results_item(get(), task, column, index, out, e);
        });
    }
    /** The experts a task was scored with; empty for all. */
    [[nodiscard]] outcome<emo::mask> mask(std::int32_t task, std::int32_t column) const {
        return detail::make<emo::mask>(
            *this, [&](emo_mask **out, emo_error *e) { return emo_task_results_mask(get(), task, column, out, e); });
    }
};

/** Scores every task in every column. */
[[nodiscard]] inline outcome<task_results> run(model &m, const task_set &tasks, const task_run_options &o = {}) {
    return detail::make_with<task_results>(m, o, false, [&](emo_task_results **out, emo_error *e) {
        return emo_task_run(m.get(), tasks.get(), &o, out, e);
    });
}

} // namespace EMO_CPP_MODE
} // namespace emo
#endif
