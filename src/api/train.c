/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "backend/plugin.h"
#include "base/options.h"
#include "base/status.h"
#include "train/trainer.h"

emo_status emo_trainer_create(emo_model *model, const emo_dataset *data, const emo_train_options *options,
                              emo_trainer **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL || model == NULL || data == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "model, data and out must not be NULL");
    *out = NULL;
    emo_train_options opt = EMO_TRAIN_OPTIONS_INIT;
    emo_status status = emo__options_copy(&opt, sizeof opt, options, "emo_train_options", err);
    if (status == EMO_OK)
        status = emo__trainer_create(model, data, &opt, NULL, out, err);
    if (status != EMO_OK && options != NULL)
        emo_comm_abort(opt.comm); /* the other ranks may be waiting for this one */
    return status;
}

void emo_trainer_release(emo_trainer *trainer) {
    if (trainer != NULL && emo__ref_put(&trainer->ref))
        emo__trainer_destroy(trainer);
}

static emo_status enter(emo_trainer *t, emo_error *err) {
    emo__error_clear(err);
    if (t == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the trainer is NULL");
    if (!emo__guard_try_write(&t->guard))
        return emo__fail(err, EMO_E_BUSY, "the trainer is in use by another thread");
    return EMO_OK;
}

/* A rank that stops must not leave the others waiting. */
static emo_status leave(emo_trainer *t, emo_status status) {
    if (status != EMO_OK && status != EMO_E_CANCELLED)
        emo_comm_abort(t->comm); /* cancelling is agreed on */
    emo__guard_end_write(&t->guard);
    return status;
}

emo_status emo_trainer_run(emo_trainer *trainer, emo_error *err) {
    emo_status status = enter(trainer, err);
    return status == EMO_OK ? leave(trainer, emo__trainer_run(trainer, err)) : status;
}

emo_status emo_trainer_step(emo_trainer *trainer, emo_step_metrics *metrics, emo_error *err) {
    emo_status status = enter(trainer, err);
    if (status != EMO_OK)
        return status;
    uint32_t size = metrics != NULL ? metrics->struct_size : 0;
    emo_step_metrics all;
    status = emo__trainer_plan(trainer, err);
    if (status == EMO_OK)
        status = emo__trainer_advance(trainer, &all, err);
    if (status == EMO_OK && size >= sizeof size)
        emo__info_give(metrics, &all, sizeof all);
    return leave(trainer, status);
}

emo_status emo_trainer_checkpoint(emo_trainer *trainer, emo_error *err) {
    emo_status status = enter(trainer, err);
    if (status != EMO_OK)
        return status;
    if (trainer->out == NULL)
        status = emo__fail(err, EMO_E_INVALID_ARGUMENT, "the trainer has no run folder (options.out)");
    else if (trainer->rank == 0)
        status = emo__checkpoint_write(trainer, &trainer->opt.progress, err);
    emo__guard_end_write(&trainer->guard);
    return status;
}

/* A planner for the device that is asked for, and the device if it is there. */
static emo_status open_planner(emo_runtime *rt, const emo_train_plan_options *o, emo_backend **device,
                               emo__device **planner, emo_error *err) {
    const char *name = o->device != NULL ? o->device : "cpu";
    emo_status status = emo__registry_open(rt->registry, name, device, err);
    if (status == EMO_OK)
        return emo__planner_of(rt, *device, planner, err);
    if (status != EMO_E_NOT_FOUND || o->plugin == NULL)
        return status;
    emo__error_clear(err);
    return emo__plugin_planner(rt, o->plugin, name, planner, err);
}

static emo_status make_plan(emo_runtime *rt, const emo__config *config, const emo_train_options *options,
                            const emo_train_plan_options *o, emo_train_plan *plan, emo_error *err) {
    emo_backend *device = NULL;
    emo__device *planner = NULL;
    emo_backend_memory memory = {0};
    emo_status status = open_planner(rt, o, &device, &planner, err);
    if (status == EMO_OK)
        status = emo__train_plan(rt, planner->backend, config, o->compute, options, plan, NULL, err);
    if (status == EMO_OK && device != NULL)
        status = device->ops->memory(device, &memory, err);
    if (status == EMO_OK && memory.total_bytes > 0) {
        plan->available = (int64_t)memory.free_bytes;
        plan->fits = plan->total <= plan->available ? 1 : 0;
    }
    emo__device_close(rt, planner);
    return status;
}

emo_status emo_train_plan_json(emo_runtime *rt, const char *config, size_t length, const emo_train_options *options,
                               const emo_train_plan_options *plan_options, emo_train_plan *out, emo_error *err) {
    emo__error_clear(err);
    if (rt == NULL || config == NULL || out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL",
                         rt == NULL       ? "rt"
                         : config == NULL ? "config"
                                          : "out");
    emo_train_options opt = EMO_TRAIN_OPTIONS_INIT;
    emo_train_plan_options how = EMO_TRAIN_PLAN_OPTIONS_INIT;
    emo_train_plan plan = EMO_TRAIN_PLAN_INIT;
    emo__config parsed = {0};
    emo_status status;
    EMO_TRY(status = emo__info_check(out, "emo_train_plan", err));
    EMO_TRY(status = emo__options_copy(&opt, sizeof opt, options, "emo_train_options", err));
    EMO_TRY(status = emo__options_copy(&how, sizeof how, plan_options, "emo_train_plan_options", err));
    if (how.compute != EMO_DTYPE_F32 && how.compute != EMO_DTYPE_BF16) {
        status =
            emo__fail(err, EMO_E_RANGE, "compute is %d; it must be EMO_DTYPE_F32 or EMO_DTYPE_BF16", (int)how.compute);
        goto done;
    }
    EMO_TRY(status = emo__config_parse(&rt->mem, config, length, &parsed, err));
    EMO_TRY(status = make_plan(rt, &parsed, &opt, &how, &plan, err));
    emo__info_give(out, &plan, sizeof plan);
done:
    emo__config_free(&parsed);
    return status;
}

int64_t emo_trainer_at(const emo_trainer *trainer) { return trainer != NULL ? trainer->step : 0; }
int64_t emo_trainer_replayed(const emo_trainer *trainer) { return trainer != NULL ? trainer->replayed : 0; }
int64_t emo_trainer_steps(const emo_trainer *trainer) { return trainer != NULL ? trainer->steps : 0; }

const char *emo_train_part_name(emo_train_part part) {
    static const char *const names[EMO__PROFILE_PARTS] = {"data",      "embed",   "norm",       "linear",     "rope",
                                                          "attention", "routing", "experts",    "dense",      "head",
                                                          "optimizer", "ranks",   "validation", "checkpoint", "other"};
    return part >= 0 && part < EMO__PROFILE_PARTS ? names[part] : NULL;
}

/* The `index`-th cell that was met; NULL past the last. */
static const emo__profile_cell *find_cell(const emo__profile *profile, size_t index, emo_train_part *part,
                                          int32_t *backward) {
    for (*part = 0; *part < EMO__PROFILE_PARTS; (*part)++)
        for (*backward = 0; *backward < 2; (*backward)++) {
            const emo__profile_cell *cell = &profile->cells[*part][*backward];
            if (cell->calls > 0 && index-- == 0)
                return cell;
        }
    return NULL;
}

emo_status emo_trainer_profile(const emo_trainer *trainer, size_t index, emo_train_profile_entry *out, emo_error *err) {
    emo__error_clear(err);
    if (trainer == NULL || out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "trainer and out must not be NULL");
    emo__guard *guard = &((emo_trainer *)(uintptr_t)trainer)->guard;
    if (!emo__guard_try_read(guard))
        return emo__fail(err, EMO_E_BUSY, "the trainer is in use by another thread, or in the middle of a step");
    emo_train_profile_entry entry = EMO_TRAIN_PROFILE_ENTRY_INIT;
    uint32_t size = out->struct_size;
    emo_status status = EMO_OK;
    const emo__profile_cell *cell = find_cell(&trainer->profile, index, &entry.part, &entry.backward);
    if (cell == NULL) {
        status = emo__fail(err, EMO_E_NOT_FOUND, "the profile has no entry %zu%s", index,
                           trainer->opt.profile ? "" : ": the trainer was created without options.profile");
    } else {
        entry.calls = cell->calls;
        entry.seconds = (double)cell->ns * 1e-9;
        memcpy(out, &entry, size < sizeof entry ? size : sizeof entry);
        if (size >= sizeof size)
            out->struct_size = size;
    }
    emo__guard_end_read(guard);
    return status;
}

emo_status emo_schedule_lr(const emo_train_options *options, int64_t step, double *lr, emo_error *err) {
    emo__error_clear(err);
    if (options == NULL || lr == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "options and lr must not be NULL");
    emo_train_options o = EMO_TRAIN_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_train_options", err);
    if (status != EMO_OK)
        return status;
    status = emo__train_options_check(&o, err);
    if (status == EMO_OK && o.max_steps < 1)
        status = emo__fail(err, EMO_E_RANGE, "max_steps is %lld; a schedule needs 1 or more", (long long)o.max_steps);
    if (status == EMO_OK && step < 0)
        status = emo__fail(err, EMO_E_RANGE, "step is %lld; steps count from 1", (long long)step);
    if (status != EMO_OK)
        return status;
    *lr = emo__schedule_lr(&o, o.max_steps, emo__schedule_warmup(&o, o.max_steps), emo__schedule_decay(&o, o.max_steps),
                           step);
    return EMO_OK;
}
