/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of training, known before any of it is allocated: a trainer is made, and makes a few steps, on a device
 * that only counts. Its rows are the two extremes: every token a document, and each row one. */
#include <stdio.h>
#include <string.h>

#include "backend/plugin.h"
#include "base/status.h"
#include "model/access.h"
#include "tensor/quant.h"
#include "train/trainer.h"

/* A row that is one document, or as many as it has tokens. Every token has a label. */
static emo_status planned_row(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err) {
    const emo_trainer *t = ctx;
    int32_t eos = t->model->config.eos;
    int32_t word = eos == 0 && t->model->config.vocab > 1 ? 1 : 0;
    (void)row;
    (void)err;
    for (int32_t i = 0; i < t->opt.seq_len; i++) {
        ids[i] = t->planning->one_document || eos < 0 ? word : eos;
        labels[i] = 0;
    }
    return EMO_OK;
}

emo_status emo__planning_note(emo_trainer *t, int64_t *field, emo_error *err) {
    emo_backend_memory memory = {0};
    if (t->planning == NULL)
        return EMO_OK;
    emo_status status = t->ops->memory(t->model->backend, &memory, err);
    *field += (int64_t)memory.live_bytes - t->planning->live;
    t->planning->live = (int64_t)memory.live_bytes;
    return status;
}

/* A model of this shape in the planner's memory. Its parameters point somewhere, as those of a loaded model do. */
static emo_status make_model(emo_runtime *rt, emo_backend *planner, const emo__config *config, emo_dtype compute,
                             emo_model **out, emo_error *err) {
    emo__config copy = {0};
    void *somewhere = NULL;
    emo_status status = emo__config_copy(config, &copy, err);
    *out = NULL;
    if (status == EMO_OK)
        status = emo__model_new(rt, &copy, out, err); /* takes the copy */
    else
        emo__config_free(&copy);
    if (status != EMO_OK)
        return status;
    (*out)->backend = planner;
    (*out)->compute = compute;
    status = planner->ops->mem_alloc(planner, 1, &somewhere, err);
    planner->ops->mem_free(planner, somewhere);
    for (size_t i = 0; status == EMO_OK && i < (*out)->n_params; i++)
        emo__param_bind(&(*out)->params[i], somewhere, EMO_DTYPE_F32);
    return status;
}

static emo_status count_steps(emo_trainer *t, emo_error *err) {
    emo_train_plan *plan = t->planning->out;
    emo_status status = EMO_OK;
    int64_t most = 0;
    int32_t no_graph = t->opt.no_graph;
    t->rows.ctx = t;
    t->rows.row = planned_row;
    t->profile.scratch = plan->workspaces;
    emo__balance_assume_full(t->balance);
    for (int i = 0; status == EMO_OK && i < 4; i++) { /* work that is replayed, and that which cannot be */
        t->planning->one_document = i % 2 == 1;
        t->opt.no_graph = no_graph || i >= 2;
        status = emo__trainer_step(t, false, NULL, err);
    }
    for (int i = 0; i < EMO__PROFILE_PARTS; i++)
        most = plan->workspaces[i] > most ? plan->workspaces[i] : most;
    emo_replay_counts counts = {0};
    if (t->ops->replay_counts != NULL)
        t->ops->replay_counts(t->exec, &counts);
    /* Twice: other rows have more lists, each shorter than the longest of these. */
    emo__step_room room = {most, 2 * counts.bytes}, arrays = {0, room.arrays}, scratch = {most, 0};
    t->planning->room = room;
    if (status == EMO_OK)
        status = emo__trainer_reserve(t, &arrays, err);
    if (status == EMO_OK)
        status = emo__planning_note(t, &plan->tables, err);
    if (status == EMO_OK)
        status = emo__trainer_reserve(t, &scratch, err);
    return status == EMO_OK ? emo__planning_note(t, &plan->workspace, err) : status;
}

emo_status emo__trainer_reserve(emo_trainer *t, const emo__step_room *room, emo_error *err) {
    emo_status status = EMO_OK;
    if (room->arrays > 0)
        status = t->ops->replay_reserve(t->exec, (size_t)room->arrays, err);
    if (status == EMO_OK && room->scratch > 0)
        status = t->ops->exec_reserve(t->exec, (size_t)room->scratch, err);
    return status;
}

static emo_status sum_up(emo_trainer *t, emo_error *err) {
    emo_train_plan *plan = t->planning->out;
    emo_backend_memory memory = {0};
    int64_t flat = t->flat_count * (int64_t)sizeof(float);
    emo_status status = t->ops->memory(t->model->backend, &memory, err);
    if (status != EMO_OK)
        return status;
    for (size_t i = 0; i < t->model->n_params; i++) {
        int64_t count = emo__param_count(&t->model->params[i]);
        plan->parameters += count;
        plan->trained += t->grad_offset[i] >= 0 ? count : 0;
    }
    plan->tokens = t->micro_rows * t->opt.seq_len;
    plan->tables += plan->weights - flat; /* what came with them */
    plan->weights = flat;
    plan->saved = (int64_t)emo__pass_kept_bytes(t->pass);
    plan->activations -= plan->saved;
    plan->micro_batch = plan->saved + plan->activations + plan->workspace;
    plan->total = plan->weights + plan->gradients + plan->moments + plan->micro_batch + plan->tables;
    plan->pinned = (int64_t)memory.pinned_bytes;
    return EMO_OK;
}

emo_status emo__train_plan(emo_runtime *rt, emo_backend *planner, const emo__config *config, emo_dtype compute,
                           const emo_train_options *options, emo_train_plan *out, emo__step_room *room,
                           emo_error *err) {
    static const emo_train_plan empty = EMO_TRAIN_PLAN_INIT;
    _Static_assert(sizeof empty.workspaces / sizeof empty.workspaces[0] >= EMO__PROFILE_PARTS, "a place for each part");
    emo_train_options o = *options;
    emo_model *model = NULL;
    emo_trainer *t = NULL;
    int32_t ranks = emo_comm_size(o.comm);
    emo__planning planning = {.out = out};
    *out = empty;
    if (ranks > 1 && o.batch_rows % ranks != 0)
        return emo__fail(err, EMO_E_RANGE, "batch_rows %d is no multiple of the %d ranks", (int)o.batch_rows,
                         (int)ranks);
    o.batch_rows /= ranks > 1 ? ranks : 1;
    o.comm = NULL;
    o.max_steps = 2;
    o.max_tokens = 0;
    o.max_minutes = 0.0;
    o.repetition_count = 0; /* the rows are all alike */
    o.valid = NULL;
    o.out = NULL;
    o.resume = 0;
    o.no_graph = o.no_graph || o.profile || ranks > 1; /* what steps do then is not replayed */
    o.profile = 1;
    o.progress = (emo_progress){0};
    o.on_step = NULL;
    emo_status status = make_model(rt, planner, config, compute, &model, err);
    if (status == EMO_OK)
        status = emo__trainer_create(model, NULL, &o, &planning, &t, err);
    if (status == EMO_OK)
        status = count_steps(t, err);
    if (status == EMO_OK)
        status = sum_up(t, err);
    if (t != NULL)
        emo__trainer_destroy(t);
    emo_model_release(model);
    if (room != NULL)
        *room = planning.room;
    return status;
}

/* "moments 12.3 GiB, gradients 6.1 GiB and weights 6.1 GiB" */
static void name_largest(const emo_train_plan *plan, char *text, size_t size) {
    struct {
        const char *name;
        int64_t bytes;
    } groups[] = {{"weights", plan->weights},
                  {"gradients", plan->gradients},
                  {"moments", plan->moments},
                  {"saved activations", plan->saved},
                  {"activations", plan->activations},
                  {"workspace", plan->workspace},
                  {"tables", plan->tables}};
    const char *const before[] = {"", ", ", " and "};
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        size_t top = 0;
        for (size_t g = 1; g < sizeof groups / sizeof groups[0]; g++)
            top = groups[g].bytes > groups[top].bytes ? g : top;
        at += (size_t)snprintf(text + at, size - at, "%s%s %.2f GiB", before[i], groups[top].name,
                               (double)groups[top].bytes / 0x1p30);
        groups[top].bytes = -1;
    }
}

/* What would make it smaller, of what was not done yet. */
static const char *what_helps(const emo_train_plan *plan, const emo_train_options *o) {
    if (plan->moments > plan->micro_batch && o->optimizer_on == EMO_OPTIMIZER_DEVICE)
        return "the optimizer's moments on the host (optimizer_on), a model with fewer experts, or training fewer "
               "parameters (a mask, train_only)";
    if (plan->micro_batch > plan->weights + plan->gradients + plan->moments)
        return o->recompute == EMO_RECOMPUTE_LAYER
                   ? "more micro-batches (accumulate), fewer rows (batch_rows) or shorter ones (seq_len)"
                   : "recomputation (recompute), more micro-batches (accumulate) or shorter rows (seq_len)";
    return "a model with fewer experts, or training fewer parameters (a mask, train_only)";
}

/* Bytes of the model's weights on its device, which the f32 masters take the place of. */
static int64_t weights_there(const emo_model *m) {
    int64_t bytes = 0;
    for (size_t i = 0; i < m->n_params; i++)
        bytes += m->params[i].view->data != NULL
                     ? (int64_t)emo__dtype_run(m->params[i].view->dtype, emo__param_count(&m->params[i]))
                     : 0;
    return bytes;
}

emo_status emo__trainer_check_memory(emo_trainer *t, emo__step_room *room, emo_error *err) {
    emo_backend *device = t->model->backend;
    emo__device *planner = NULL;
    emo_backend_memory memory = {0};
    emo_train_plan plan;
    char largest[160];
    *room = (emo__step_room){0, 0};
    if (t->planning != NULL || emo__model_on_host(t->model) || device->ops->planner == NULL)
        return EMO_OK;
    emo_status status = emo__planner_of(t->rt, device, &planner, err);
    if (status == EMO_OK)
        status =
            emo__train_plan(t->rt, planner->backend, &t->model->config, t->model->compute, &t->opt, &plan, room, err);
    if (status == EMO_OK)
        status = device->ops->memory(device, &memory, err);
    emo__device_close(t->rt, planner);
    if (status != EMO_OK)
        return status;
    int64_t free_bytes = (int64_t)memory.free_bytes + weights_there(t->model);
    if (memory.total_bytes == 0 || plan.total <= free_bytes)
        return EMO_OK;
    name_largest(&plan, largest, sizeof largest);
    return emo__fail(err, EMO_E_OUT_OF_MEMORY,
                     "training takes %.2f GiB and the device has room for %.2f GiB: %s. What helps: %s",
                     (double)plan.total / 0x1p30, (double)free_bytes / 0x1p30, largest, what_helps(&plan, &t->opt));
}
