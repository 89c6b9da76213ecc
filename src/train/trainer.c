/* SPDX-License-Identifier: Apache-2.0 */
/* Making and unmaking a trainer: checks, masters, gradients, moments, buffers. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/comm.h"
#include "base/status.h"
#include "model/access.h"
#include "model/files.h"
#include "moe/mask.h"
#include "moe/pool.h"
#include "train/trainer.h"

static emo_status check_data(const emo__config *c, const emo_dataset *data, const char *which, emo_error *err) {
    if (emo_dataset_vocab_size(data) > c->vocab)
        return emo__fail(err, EMO_E_MISMATCH, "the %s data need a vocabulary of %d; the model has %d (vocab_size)",
                         which, (int)emo_dataset_vocab_size(data), (int)c->vocab);
    if (emo_dataset_eos(data) != c->eos)
        return emo__fail(err, EMO_E_MISMATCH,
                         "the end-of-text token is %d in the %s data and %d in the model (eos_token_id)",
                         (int)emo_dataset_eos(data), which, (int)c->eos);
    return EMO_OK;
}

/* Pools must hold what each token chooses, whatever size is drawn. A mask may leave less: then top-k is what is left,
 * as in a model pruned to the mask, and the first rank says so. */
static emo_status check_choice(emo_trainer *t, emo_error *err) {
    const emo__config *c = &t->model->config;
    const emo_pool_policy *p = t->pool;
    if (p != NULL && p->scope == EMO_POOL_SCOPE_PROMPT)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "a pool chosen from the prompt is for sessions, not for training");
    emo__few_experts few = {0};
    t->choose = emo__calloc(&t->rt->mem, (size_t)c->layers, sizeof *t->choose);
    if (t->choose == NULL)
        return emo__fail_memory(err, (size_t)c->layers * sizeof *t->choose);
    bool sized = p != NULL && p->kind != EMO_POOL_NONE && p->kind != EMO_POOL_TABLE;
    for (int32_t l = 0; l < c->layers; l++) {
        int32_t chosen = emo__config_chosen(c, l);
        if (c->layer[l].experts == 0)
            continue;
        if (sized && p->min < chosen && p->forced < chosen)
            return emo__fail(err, EMO_E_RANGE, "pool: %d experts are fewer than the %d that each token chooses",
                             (int)p->min, (int)chosen);
        t->choose[l] = t->keep != NULL ? emo__choices(c, l, t->keep[l]) : chosen;
        if (t->keep != NULL)
            emo__few_experts_add(&few, c, l, t->keep[l]);
    }
    if (t->rank == 0 && t->planning == NULL)
        emo__few_experts_report(&few, t->model);
    t->model->told_few = true; /* validation need not say it again */
    return EMO_OK;
}

static emo_status check_fit(emo_trainer *t, const emo_dataset *data, emo_error *err) {
    const emo_train_options *o = &t->opt;
    const emo__config *c = &t->model->config;
    if (o->batch_rows % (t->ranks * o->accumulate) != 0)
        return emo__fail(err, EMO_E_RANGE, "batch_rows %d is no multiple of ranks %d times accumulate %d",
                         (int)o->batch_rows, (int)t->ranks, (int)o->accumulate);
    if (t->ranks > 1 && !emo__model_on_host(t->model))
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "%d ranks exchange gradients through host memory; the model's weights are on a device of '%s'",
                         (int)t->ranks, t->model->backend->name);
    if (o->seq_len > c->max_positions)
        return emo__fail(err, EMO_E_RANGE, "seq_len %d is above the model's max_position_embeddings %d",
                         (int)o->seq_len, (int)c->max_positions);
    if (t->planning != NULL)
        return check_choice(t, err);
    emo_status status = check_data(c, data, "training", err);
    if (status == EMO_OK && o->valid != NULL)
        status = check_data(c, o->valid, "validation", err);
    if (status != EMO_OK)
        return status;
    if (emo_dataset_tokens(data) == 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the training data hold no tokens");
    return check_choice(t, err);
}

static bool trainable(const emo_trainer *t, const emo__param *p) {
    if (p->view->data == NULL || emo__param_is_score_bias(p)) /* that one follows the counts */
        return false;
    if (t->opt.train_only == EMO_TRAIN_EXPERTS && p->group != EMO__P_ROUTED)
        return false;
    /* experts outside the mask are never used: they stay as they are, also without weight decay */
    return !(t->keep != NULL && p->group == EMO__P_ROUTED && t->keep[p->layer][p->expert] == 0);
}

/* Places in the gradient block, and runs of parameters that one adamw call can take. */
static emo_status place_gradients(emo_trainer *t, emo_error *err) {
    emo_model *m = t->model;
    const emo__mem *mem = &t->rt->mem;
    t->grad_offset = emo__malloc_array(mem, m->n_params, sizeof *t->grad_offset);
    t->runs = emo__malloc_array(mem, m->n_params, sizeof *t->runs);
    if (t->grad_offset == NULL || t->runs == NULL)
        return emo__fail_memory(err, m->n_params * sizeof *t->runs);
    int64_t at = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        const emo__param *p = &m->params[i];
        t->grad_offset[i] = -1;
        if (!trainable(t, p))
            continue;
        int64_t room = (emo__param_count(p) + 15) / 16 * 16;
        float *data = (float *)(uintptr_t)p->view->data;
        float decay = p->group == EMO__P_EMBED ? 0.0f : t->opt.weight_decay;
        emo__adam_run *last = t->n_runs > 0 ? &t->runs[t->n_runs - 1] : NULL;
        t->grad_offset[i] = at;
        if (last != NULL && last->p + last->count == data && !(last->weight_decay < decay) &&
            !(last->weight_decay > decay))
            last->count += room;
        else
            t->runs[t->n_runs++] = (emo__adam_run){data, at, room, decay};
        at += room;
    }
    t->grad_count = at;
    return at > 0 ? EMO_OK : emo__fail(err, EMO_E_INVALID_ARGUMENT, "nothing is left to train");
}

static emo_status device_block(emo_trainer *t, size_t bytes, void **out, emo_error *err) {
    emo_status status = t->ops->mem_alloc(t->model->backend, bytes, out, err);
    return status == EMO_OK ? t->ops->zero(t->exec, *out, bytes, err) : status;
}

static emo_status create_balance_buffers(emo_trainer *t, int64_t documents, emo_error *err) {
    const emo__config *c = &t->model->config;
    const emo__mem *mem = &t->rt->mem;
    size_t layers = (size_t)c->layers;
    int64_t sets = t->opt.balance_scope == EMO_BALANCE_DOCUMENT ? documents : 1;
    int64_t floats = 0;
    size_t widest = emo__config_widest(c);
    t->layer_grad = emo__calloc(mem, layers, sizeof *t->layer_grad);
    t->route = emo__calloc(mem, layers, sizeof *t->route);
    if (t->layer_grad == NULL || t->route == NULL)
        return emo__fail_memory(err, layers * sizeof *t->route);
    for (int32_t l = 0; l < c->layers; l++) {
        floats += c->layer[l].experts > 0 ? sets * emo__config_routed(c, l) : 0;
        t->n_counts += (size_t)c->layer[l].experts;
    }
    emo_status status = device_block(t, (size_t)(floats + 1) * sizeof(float), &t->balance_grads, err);
    float *at = t->balance_grads;
    for (int32_t l = 0; status == EMO_OK && l < c->layers; l++) {
        if (c->layer[l].experts == 0)
            continue;
        t->layer_grad[l] = at;
        at += sets * emo__config_routed(c, l);
    }
    t->load = emo__malloc_array(mem, widest, sizeof *t->load);
    t->host_bias = emo__malloc_array(mem, widest, sizeof *t->host_bias);
    bool ok = t->load != NULL && t->host_bias != NULL;
    t->n_counts *= (size_t)t->opt.accumulate;
    for (int i = 0; i < 2; i++) {
        t->queue[i].sums = emo__calloc(mem, t->n_sums, sizeof *t->queue[i].sums);
        t->queue[i].counts = emo__calloc(mem, t->n_counts + 1, sizeof *t->queue[i].counts);
        ok = ok && t->queue[i].sums != NULL && t->queue[i].counts != NULL;
    }
    return status == EMO_OK && !ok ? emo__fail_memory(err, (t->n_sums + t->n_counts) * sizeof(double)) : status;
}

static emo_status create_balance(emo_trainer *t, emo_error *err) {
    const emo__config *c = &t->model->config;
    const emo__mem *mem = &t->rt->mem;
    int32_t *shape = emo__malloc_array(mem, 2 * (size_t)c->layers, sizeof *shape);
    if (shape == NULL)
        return emo__fail_memory(err, 2 * (size_t)c->layers * sizeof *shape);
    for (int32_t l = 0; l < c->layers; l++) {
        shape[l] = c->layer[l].experts;
        shape[c->layers + l] = c->layer[l].shared;
    }
    emo_status status = emo__balance_create(t->rt, t->model->backend, c->layers, shape, shape + c->layers,
                                            t->opt.balance_scope, t->opt.balance_window, &t->balance, err);
    emo__free(mem, shape);
    return status;
}

/* The gating asked for, and a score bias where it is to be moved. */
static emo_status set_router(emo_trainer *t, emo_error *err) {
    emo__config *c = &t->model->config;
    int32_t before = c->gating;
    if (t->opt.gating >= 0)
        c->gating = t->opt.gating == EMO_ROUTER_SIGMOID ? EMO_GATING_SIGMOID : EMO_GATING_SOFTMAX;
    emo_status status = emo__config_check(c, err);
    if (status == EMO_OK && t->opt.score_bias_rate > 0.0f)
        status = emo__model_add_score_bias(t->model, err);
    if (status != EMO_OK)
        c->gating = before;
    return status;
}

static emo_status create_compute(emo_trainer *t, emo_error *err) {
    emo_model *m = t->model;
    const emo__config *c = &m->config;
    int64_t documents = t->micro_rows * t->opt.seq_len;
    emo_status status = set_router(t, err);
    if (status != EMO_OK)
        return status;
    const emo__param *quantised = emo__model_quantised(m);
    if (quantised != NULL) {
        char name[EMO__NAME_MAX];
        emo__param_name(quantised, name);
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "tensor \"%s\" is held as %s: quantised weights cannot be trained; load the model they were "
                         "made from, or load with a float type to train what is left of them",
                         name, emo_dtype_name(quantised->view->dtype));
    }
    emo__step_room room = {0, 0};
    status = emo__trainer_check_memory(t, &room, err);
    if (status != EMO_OK)
        return status;
    int64_t *offsets = emo__malloc_array(&t->rt->mem, m->n_params, sizeof *offsets);
    if (offsets == NULL)
        return emo__fail_memory(err, m->n_params * sizeof *offsets);
    int fill = t->planning == NULL;
    status = emo__model_to_f32(m, fill, &t->flat, &t->flat_count, offsets, &t->opt.progress, err);
    emo__free(&t->rt->mem, offsets);
    if (status != EMO_OK)
        return status;
    m->config.train_seq_len = t->opt.seq_len;
    EMO_TRY(status = place_gradients(t, err));
    emo_train_plan unused = EMO_TRAIN_PLAN_INIT;
    emo_train_plan *plan = t->planning != NULL ? t->planning->out : &unused;
    EMO_TRY(status = emo__planning_note(t, &plan->weights, err));
    size_t bytes;
    if (!emo__mul_size((size_t)t->grad_count, sizeof(float), &bytes))
        return emo__fail_memory(err, SIZE_MAX);
    EMO_TRY(status = device_block(t, bytes, (void **)&t->g, err));
    EMO_TRY(status = emo__planning_note(t, &plan->gradients, err));
    if (t->opt.optimizer_on == EMO_OPTIMIZER_HOST && strcmp(m->backend->name, t->rt->cpu->name) != 0) {
        EMO_TRY(status = emo__offload_create(t, err));
    } else {
        EMO_TRY(status = device_block(t, bytes, (void **)&t->m, err));
        EMO_TRY(status = device_block(t, bytes, (void **)&t->v, err));
    }
    EMO_TRY(status = emo__planning_note(t, &plan->moments, err));
    EMO_TRY(status = device_block(t, sizeof *t->scalars, (void **)&t->scalars, err));
    t->n_sums = (size_t)t->opt.accumulate * ((size_t)c->layers + 2) + (size_t)c->layers;
    EMO_TRY(status = device_block(t, t->n_sums * sizeof *t->sums, (void **)&t->sums, err));
    EMO_TRY(status = emo__grads_create(m, t->g, t->grad_offset, &t->grads, err));
    emo__pass_config pass = {0};
    pass.max_tokens = documents;
    pass.max_documents = documents;
    pass.save = true;
    pass.recompute = t->opt.recompute;
    pass.document_balance = t->opt.balance_scope == EMO_BALANCE_DOCUMENT;
    pass.shared_mode = -1;
    pass.exec = t->exec; /* gradients are zeroed, made and used in one order */
    EMO_TRY(status = emo__planning_note(t, &plan->tables, err));
    EMO_TRY(status = emo__pass_create(m, &pass, &t->pass, err));
    EMO_TRY(status = emo__planning_note(t, &plan->activations, err));
    EMO_TRY(status = emo__pass_reserve(t->pass, t->opt.seq_len, err));
    emo__pass_set_grads(t->pass, &t->grads);
    emo__pass_set_profile(t->pass, emo__trainer_profile(t));
    EMO_TRY(status = create_balance(t, err));
    EMO_TRY(status = emo__balance_reserve(t->balance, t->opt.accumulate, err));
    EMO_TRY(status = create_balance_buffers(t, documents, err));
    status = emo__trainer_reserve(t, &room, err); /* from here on steps allocate nothing */
done:
    return status;
}

/* The experts of every layer that the mask leaves, [experts] flags each. */
static emo_status keep_of_mask(emo_trainer *t, emo_error *err) {
    const emo__config *c = &t->model->config;
    t->keep = emo__calloc(&t->rt->mem, (size_t)c->layers, sizeof *t->keep);
    if (t->keep == NULL)
        return emo__fail_memory(err, (size_t)c->layers * sizeof *t->keep);
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < c->layers; l++) {
        t->keep[l] = emo__calloc(&t->rt->mem, (size_t)c->layer[l].experts + 1, 1);
        status = t->keep[l] != NULL ? emo__model_keep(t->model, t->mask, l, t->keep[l], err)
                                    : emo__fail_memory(err, (size_t)c->layer[l].experts);
    }
    return status;
}

static emo_status retain_options(emo_trainer *t, const emo_train_options *o, emo_error *err) {
    t->pool = emo__pool_retain((emo_pool_policy *)(uintptr_t)o->pool);
    emo_status status = emo__model_need_all(t->model, "training", err);
    if (status != EMO_OK)
        return status;
    if (t->model->subset != NULL)
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "a model loaded as a subset cannot be saved again and so not be trained: prune it first, or "
                         "load all of it and train with a mask");
    if (o->mask != NULL) {
        status = emo_mask_clone(o->mask, &t->mask, err);
        if (status == EMO_OK)
            status = keep_of_mask(t, err);
    }
    if (status == EMO_OK && o->out != NULL) {
        t->out = emo__strdup(&t->rt->mem, o->out);
        if (t->out == NULL)
            status = emo__fail_memory(err, strlen(o->out));
    }
    t->opt.out = t->out;
    t->opt.pool = t->pool;
    t->opt.mask = t->mask;
    return status;
}

/* All that a rank does by itself. */
static emo_status prepare(emo_trainer *t, const emo_dataset *data, emo_error *err) {
    emo_status status;
    EMO_TRY(status = emo__train_options_check(&t->opt, err));
    EMO_TRY(status = retain_options(t, &t->opt, err));
    EMO_TRY(status = check_fit(t, data, err));
    t->rank_rows = t->opt.batch_rows / t->ranks;
    t->micro_rows = t->rank_rows / t->opt.accumulate;
    if (t->opt.valid != NULL) {
        t->valid = emo__dataset_retain((emo_dataset *)(uintptr_t)t->opt.valid);
        t->opt.valid = t->valid;
    }
    if (t->planning == NULL)
        EMO_TRY(status = emo__packer_create(data, t->opt.seed, t->opt.seq_len, &t->packer, err));
    EMO_TRY(status = emo__step_data_create(t, err));
    status = create_compute(t, err);
    if (t->opt.max_steps > 0)
        t->steps = t->opt.max_steps;
    else if (t->opt.max_tokens > 0) {
        int64_t step_tokens = (int64_t)t->opt.batch_rows * t->opt.seq_len;
        t->steps = (t->opt.max_tokens + step_tokens - 1) / step_tokens;
    }
done:
    return status;
}

static emo_status build(emo_trainer *t, const emo_dataset *data, emo_error *err) {
    emo_status status;
    t->comm = emo__comm_retain(t->opt.comm);
    t->ranks = emo_comm_size(t->comm);
    t->rank = emo_comm_rank(t->comm);
    t->saved = -1;
    status = emo__model_exec(t->model, &t->exec, err);
    if (status == EMO_OK)
        status = device_block(t, EMO__EXCHANGE * sizeof *t->exchange, (void **)&t->exchange, err);
    if (status != EMO_OK) {
        emo_comm_abort(t->comm); /* this rank cannot even say that it failed */
        return status;
    }
    EMO_TRY(status = emo__ranks_agree(t, prepare(t, data, err), err));
    bool folder = t->out != NULL && t->rank == 0;
    EMO_TRY(status = emo__ranks_agree(t, folder ? emo__run_open(t, err) : EMO_OK, err));
    EMO_TRY(status = emo__ranks_share_start(t, err));
    t->warmup = emo__schedule_warmup(&t->opt, t->steps);
    t->decay = emo__schedule_decay(&t->opt, t->steps);
done:
    return status;
}

/* What the options changed in a model of which no trainer came. */
static void give_back(emo_trainer *t) {
    emo__config *c = &t->model->config;
    c->gating = t->was.gating;
    c->train_seq_len = t->was.train_seq_len;
    if (c->score_bias && !t->was.score_bias)
        emo__model_drop_score_bias(t->model);
}

void emo__trainer_destroy(emo_trainer *t) {
    const emo__mem *mem = &t->rt->mem;
    emo_backend *be = t->model->backend;
    emo__pass_destroy(t->pass);
    emo__grads_free(&t->grads);
    emo__balance_destroy(t->balance);
    emo__step_data_destroy(t);
    emo__packer_destroy(t->packer);
    emo__offload_destroy(t);
    t->ops->mem_free(be, t->g);
    t->ops->mem_free(be, t->m);
    t->ops->mem_free(be, t->v);
    t->ops->mem_free(be, t->scalars);
    t->ops->mem_free(be, t->exchange);
    t->ops->mem_free(be, t->sums);
    t->ops->mem_free(be, t->balance_grads);
    t->ops->exec_destroy(t->exec);
    emo__lock_release(&t->lock);
    emo__free(mem, t->grad_offset);
    emo__free(mem, t->runs);
    emo__free(mem, t->layer_grad);
    emo__free(mem, t->route);
    for (int i = 0; i < 2; i++) {
        emo__free(mem, t->queue[i].sums);
        emo__free(mem, t->queue[i].counts);
    }
    emo__free(mem, t->load);
    emo__free(mem, t->host_bias);
    emo__free(mem, t->out);
    for (int32_t l = 0; t->keep != NULL && l < t->model->config.layers; l++)
        emo__free(mem, t->keep[l]);
    emo__free(mem, t->keep);
    emo__free(mem, t->choose);
    emo__pool_release(t->pool);
    emo__mask_release(t->mask);
    emo_dataset_release(t->valid);
    emo_comm_release(t->comm);
    emo_model *model = t->model;
    emo_runtime *rt = t->rt;
    model->told_few = false;
    if (!t->made)
        give_back(t);
    emo__free(mem, t);
    emo__guard_end_write(&model->guard);
    emo_model_release(model);
    emo_runtime_release(rt);
}

emo_status emo__trainer_create(emo_model *model, const emo_dataset *data, const emo_train_options *options,
                               emo__planning *planning, emo_trainer **out, emo_error *err) {
    *out = NULL;
    if (!emo__guard_try_write(&model->guard))
        return emo__fail(err, EMO_E_BUSY, "the model is in use; a trainer needs it to itself");
    emo_trainer *t = emo__calloc(&model->rt->mem, 1, sizeof *t);
    if (t == NULL) {
        emo__guard_end_write(&model->guard);
        return emo__fail_memory(err, sizeof *t);
    }
    emo__ref_init(&t->ref);
    emo__guard_init(&t->guard);
    t->rt = emo__runtime_retain(model->rt);
    t->model = emo__model_retain(model);
    t->ops = model->backend->ops;
    t->opt = *options;
    t->planning = planning;
    t->lock.fd = -1;
    t->was.gating = model->config.gating;
    t->was.score_bias = model->config.score_bias;
    t->was.train_seq_len = model->config.train_seq_len;
    emo_status status = build(t, data, err);
    if (status != EMO_OK) {
        emo__trainer_destroy(t);
        return status;
    }
    t->made = true;
    *out = t;
    return EMO_OK;
}
