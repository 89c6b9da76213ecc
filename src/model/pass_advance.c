/* SPDX-License-Identifier: Apache-2.0 */
/* The cursor of a pass: {step, rows, tasks}. A step is worked on whole, by rows, or by the tasks of its operators. */
#include "base/clock.h"
#include "base/progress.h"
#include "base/status.h"
#include "model/pass_state.h"

/* By time, a task is short at any speed: with few rows it reads about half a million weights. The first slice of a
 * stage has one task for each worker, or rows with as few multiply-adds as any machine does in that time: they wait for
 * memory. By work, a slice is so many tasks, so that every worker has some. */
#define TASK_WORK ((int64_t)1 << 24)
#define FIRST_WORK ((int64_t)1 << 19)
#define TASKS_OF_WORK 8

/* A part of the step at the cursor: rows [at_row, rows), and of their tasks those in [at_task, tasks). */
typedef struct piece {
    int64_t rows;
    int64_t tasks; /* 0: all, in one call */
    int64_t count; /* rows or tasks that were asked for */
} piece;

void emo__pass_set_slice_work(emo__pass *p, int64_t multiply_adds) {
    p->slice_work = p->cfg.save ? 0 : multiply_adds; /* backward needs one dispatch plan per layer */
    p->slice_ns = 0;
}

void emo__pass_set_slice_time(emo__pass *p, uint64_t ns) {
    p->slice_ns = p->cfg.save ? 0 : ns;
    p->slice_work = 0;
}

static bool stops_here(const emo__limit *limit, const emo__pass *p, const emo__step *step) {
    return limit != NULL && limit->stop_stage != 0 && p->at_row == 0 && p->at_task == 0 &&
           step->stage == limit->stop_stage && step->layer == limit->stop_layer;
}

/* Rows or tasks that take as long as a slice should; 0: not known yet. */
static int64_t pace_of(const emo__pass *p, const emo__step *step) {
    return p->at_row > 0 || p->at_task > 0 ? p->pace_here : p->pace[step->stage];
}

/* Rows of a slice; 0: all of them. */
static int64_t slice_rows(const emo__pass *p, const emo__step *step) {
    if (!emo__step_sliceable(step) || (p->slice_ns == 0 && p->slice_work == 0))
        return 0;
    int64_t rows = p->slice_ns > 0 ? pace_of(p, step) : 0;
    if (rows == 0)
        rows = (p->slice_ns > 0 ? FIRST_WORK : p->slice_work) / emo__step_row_work(p, step);
    return rows > 1 ? rows : 1;
}

/* With an exec that is not the pass's own, others might come between the parts of an operator. */
static bool by_tasks(const emo__pass *p, const emo__step *step) {
    return p->at_task > 0 || (p->at_row == 0 && (p->slice_ns > 0 || p->slice_work > 0) &&
                              emo__step_has_tasks(p, step) && p->ops->window != NULL && p->cfg.exec == NULL);
}

static piece next_piece(emo__pass *p, const emo__step *step) {
    int64_t rows = emo__step_rows(p, step);
    size_t workers = p->model->rt->executor.concurrency;
    if (by_tasks(p, step)) {
        if (p->at_task == 0)
            p->task_work = p->slice_ns > 0 ? TASK_WORK : (p->slice_work + TASKS_OF_WORK - 1) / TASKS_OF_WORK;
        int64_t count = INT64_MAX - p->at_task; /* the rest, where slices are no longer asked for */
        if (p->slice_ns > 0)
            count = pace_of(p, step) > (int64_t)workers ? pace_of(p, step) : (int64_t)workers;
        else if (p->slice_work > 0)
            count = TASKS_OF_WORK;
        return (piece){rows, p->at_task + count, count};
    }
    int64_t count = slice_rows(p, step);
    return (piece){count > 0 && count < rows - p->at_row ? p->at_row + count : rows, 0, count};
}

/* Runs a piece and moves the cursor within the step; *whole: the piece was not cut short by the step's end. */
static emo_status run_piece(emo__pass *p, const emo__step *step, const piece *next, bool *whole, emo_error *err) {
    emo_status status = EMO_OK;
    if (p->at_task == 0)
        status = emo__step_begin(p, step, p->at_row, next->rows, err);
    if (status == EMO_OK && next->tasks == 0)
        status = emo__step_run(p, step, p->at_row, next->rows, err);
    if (next->tasks == 0 || status != EMO_OK) {
        *whole = next->rows - p->at_row == next->count;
        p->at_row = status == EMO_OK ? next->rows : p->at_row;
        return status;
    }
    (void)p->ops->window(p->exec, p->at_task, next->tasks, p->task_work);
    status = emo__step_run(p, step, 0, next->rows, err);
    int64_t tasks = p->ops->window(p->exec, 0, 0, 0);
    if (status != EMO_OK)
        return status;
    *whole = next->tasks <= tasks;
    p->at_task = next->tasks < tasks ? next->tasks : 0;
    p->at_row = p->at_task > 0 ? 0 : next->rows;
    return EMO_OK;
}

/* A slice that took less than half of its time, or more than all of it, changes the next one. What the system did
 * meanwhile looks like slowness, but is forgotten as fast. The tasks of a step are of several kinds: it begins with
 * what was learnt where others of its stage began. */
static void learn(emo__pass *p, const emo__step *step, const piece *done, bool first, bool whole, uint64_t ns) {
    int64_t pace = done->count;
    if (ns > p->slice_ns)
        pace = pace > 1 ? pace / 2 : pace;
    else if (whole && ns < p->slice_ns / 2 && pace <= INT64_MAX / 4)
        pace *= 2;
    p->pace_here = pace;
    if (first)
        p->pace[step->stage] = pace;
}

/* Whether a further slice would end further from the deadline than the last one. */
static bool is_late(const emo__pass *p, uint64_t now, uint64_t deadline) {
    return p->slice_ns > 0 ? now + p->slice_ns / 2 >= deadline : emo__now_ns() >= deadline;
}

emo_status emo__pass_advance(emo__pass *p, const emo__limit *limit, bool *done, emo_error *err) {
    *done = false;
    if (!p->has_batch)
        return emo__fail(err, EMO_E_INTERNAL, "the pass has no batch");
    int32_t slices = 0;
    uint64_t begun = p->slice_ns > 0 ? emo__now_ns() : 0;
    while (p->at_step < p->n_steps) {
        const emo__step *step = &p->steps[p->at_step];
        if (stops_here(limit, p, step))
            return EMO_OK;
        if (limit != NULL && slices > 0) {
            if (limit->slices > 0 && slices >= limit->slices)
                return EMO_OK;
            if (limit->deadline_ns != 0 && is_late(p, begun, limit->deadline_ns))
                return EMO_OK;
        }
        if (limit != NULL) {
            emo_status status = emo__report(limit->progress, "forward", p->at_step, p->n_steps, err);
            if (status != EMO_OK)
                return status;
        }
        if (emo__step_rows(p, step) > 0) {
            bool whole = false, first = p->at_row == 0 && p->at_task == 0;
            piece next = next_piece(p, step);
            emo_status status = run_piece(p, step, &next, &whole, err);
            if (status != EMO_OK)
                return status;
            emo__pass_lap(p, emo__step_part(step), 0);
            slices++;
            p->slices++;
            if (p->slice_ns > 0) {
                uint64_t now = emo__now_ns();
                learn(p, step, &next, first, whole, now - begun);
                begun = now;
            }
        }
        if (p->at_task == 0 && p->at_row >= emo__step_rows(p, step)) {
            p->at_step++;
            p->at_row = 0;
        }
    }
    *done = true;
    return EMO_OK;
}
