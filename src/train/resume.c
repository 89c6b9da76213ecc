/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a run folder: a fresh run, or one to go on with. */
#include <stdio.h>
#include <string.h>

#include "base/parse.h"
#include "base/status.h"
#include "model/access.h"
#include "moe/pool.h"
#include "train/run_folder.h"

#define SMALL_FILE ((size_t)1 << 24)
#define LOCK "state/lock"

#define MAX_STEPS ((int64_t)1 << 40) /* as the option max_steps */

int64_t emo__checkpoint_step(const char *name) {
    int64_t step = -1;
    if (strncmp(name, "step-", 5) != 0 || !emo__parse_i64(name + 5, strlen(name + 5), &step))
        return -1;
    return step;
}

#define FNV_START 0xcbf29ce484222325u
static uint64_t fnv1a(uint64_t hash, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* The experts that the run may use: "all", or a number that tells masks apart. */
static void describe_mask(const emo_trainer *t, char text[24]) {
    const emo__config *c = &t->model->config;
    uint64_t hash = FNV_START;
    for (int32_t l = 0; t->keep != NULL && l < c->layers; l++)
        hash = fnv1a(hash, t->keep[l], (size_t)c->layer[l].experts);
    if (t->keep != NULL)
        (void)snprintf(text, 24, "%016llx", (unsigned long long)hash);
    else
        (void)snprintf(text, 24, "all");
}

/* The options that decide what a run computes, as JSON: a resume must have the same. `pool` is their text. */
static emo_status describe_with(emo_trainer *t, const char *pool, emo__buf *text, emo_error *err) {
    const emo_train_options *o = &t->opt;
    char mask[24];
    describe_mask(t, mask);
    emo__jw w;
    emo__jw_begin(&w, text, 2, err);
    emo__jw_object(&w, NULL);
    emo__jw_i64(&w, "steps", t->steps);
    emo__jw_i64(&w, "schedule", o->schedule);
    emo__jw_string(&w, "pool", pool);
    emo__jw_i64(&w, "pool_scope", t->pool != NULL ? t->pool->scope : 0);
    emo__jw_i64(&w, "pool_forced", t->pool != NULL ? t->pool->forced : 0);
    emo__jw_string(&w, "mask", mask);
    emo__jw_i64(&w, "balance_scope", o->balance_scope);
    emo__jw_i64(&w, "balance_window", o->balance_window);
    emo__jw_f32(&w, "balance_weight", o->balance_weight);
    emo__jw_f32(&w, "z_weight", o->z_weight);
    emo__jw_f32(&w, "lm_z_weight", o->lm_z_weight);
    emo__jw_f32(&w, "lr", o->lr);
    emo__jw_f32(&w, "beta1", o->beta1);
    emo__jw_f32(&w, "beta2", o->beta2);
    emo__jw_f32(&w, "eps", o->eps);
    emo__jw_f32(&w, "weight_decay", o->weight_decay);
    emo__jw_f32(&w, "max_grad_norm", o->max_grad_norm);
    emo__jw_f32(&w, "alpha_f", o->alpha_f);
    emo__jw_f32(&w, "warmup_min_lr", o->warmup_min_lr);
    emo__jw_f32(&w, "decay_min_lr", o->decay_min_lr);
    emo__jw_i64(&w, "warmup", o->warmup);
    emo__jw_i64(&w, "decay", o->decay);
    emo__jw_i64(&w, "batch_rows", o->batch_rows);
    emo__jw_i64(&w, "accumulate", o->accumulate);
    emo__jw_i64(&w, "seq_len", o->seq_len);
    emo__jw_i64(&w, "train_only", o->train_only);
    emo__jw_i64(&w, "gating", t->model->config.gating);
    emo__jw_f32(&w, "score_bias_rate", o->score_bias_rate);
    emo__jw_f32(&w, "jitter", o->jitter);
    emo__jw_i64(&w, "repetition_count", o->repetition_count);
    emo__jw_i64(&w, "repetition_period", o->repetition_count > 0 ? o->repetition_period : 0);
    emo__jw_i64(&w, "seed", (int64_t)o->seed);
    emo__jw_i64(&w, "compute", t->model->compute);
    emo__jw_i64(&w, "data_tokens", (int64_t)emo__packer_epoch_tokens(t->packer));
    emo__jw_i64(&w, "parameters", t->grad_count);
    emo__jw_object_end(&w);
    return emo__jw_end(&w);
}

static emo_status describe(emo_trainer *t, emo__buf *text, emo_error *err) {
    emo__buf pool;
    emo__buf_init(&pool, &t->rt->mem);
    emo_status status = EMO_OK;
    if (t->pool != NULL)
        status = emo__pool_describe(t->pool, &pool, err);
    if (status == EMO_OK)
        status = describe_with(t, t->pool != NULL ? pool.data : "none", text, err);
    emo__buf_free(&pool);
    return status;
}

emo_status emo__run_store_plan(emo_trainer *t, emo_error *err) {
    emo__buf text;
    emo__buf path;
    emo__buf_init(&text, &t->rt->mem);
    emo__buf_init(&path, &t->rt->mem);
    emo_status status;
    EMO_TRY(status = describe(t, &text, err));
    EMO_TRY(status = emo__path_join(&path, t->out, "state/run.json", err));
    status = emo__file_write(&t->rt->mem, path.data, text.data, text.size, err);
done:
    emo__buf_free(&text);
    emo__buf_free(&path);
    return status;
}

emo_status emo__run_hash(emo_trainer *t, uint64_t *hash, emo_error *err) {
    emo__buf text;
    emo__buf_init(&text, &t->rt->mem);
    emo_status status = describe(t, &text, err);
    if (status == EMO_OK)
        *hash = fnv1a(FNV_START, text.data, text.size);
    emo__buf_free(&text);
    return status;
}

/* Two JSON scalars with the same text. */
static bool same_scalar(const emo__json *a, const emo__json *b) {
    const char *x = emo__json_string(a, NULL);
    const char *y = emo__json_string(b, NULL);
    double u = 0.0;
    double v = 0.0;
    int64_t i = 0;
    int64_t k = 0;
    if (x != NULL || y != NULL)
        return x != NULL && y != NULL && strcmp(x, y) == 0;
    if (emo__json_i64(a, &i) && emo__json_i64(b, &k))
        return i == k;
    return emo__json_f64(a, &u) && emo__json_f64(b, &v) && !(u < v) && !(u > v);
}

/* The stored text of a pool against the trainer's. Runs that were begun with a library whose texts had less in them go
 * on: scope and forced experts have keys of their own, evaluation pools play no part in a run, a table was just
 * "table". */
static emo_status same_pool(emo_trainer *t, const char *stored, bool *same, emo_error *err) {
    emo_pool_policy *before = NULL;
    if (t->pool == NULL || t->pool->kind == EMO_POOL_NONE) {
        *same = strncmp(stored, "none", 4) == 0;
        return EMO_OK;
    }
    if (strcmp(stored, "table") == 0) {
        *same = t->pool->kind == EMO_POOL_TABLE;
        return EMO_OK;
    }
    emo_status status = emo_pool_policy_parse(t->rt, stored, &before, err);
    if (status == EMO_OK)
        *same = emo__pool_trains_alike(t->pool, before);
    emo_pool_policy_release(before);
    return status == EMO_E_INVALID_ARGUMENT || status == EMO_E_RANGE
               ? emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "state/run.json: \"%.60s\" is no pool", stored)
               : status;
}

/* The stored options against this trainer's; the number of steps is taken over when this one has none yet. */
static emo_status compare_plan(emo_trainer *t, const char *plan, size_t size, emo_error *err) {
    emo__json *stored = NULL;
    emo__json *mine = NULL;
    emo__buf own;
    emo__buf_init(&own, &t->rt->mem);
    emo_status status;
    EMO_TRY(status = emo__json_parse(&t->rt->mem, plan, size, "state/run.json", &stored, err));
    int64_t steps = 0;
    EMO_TRY(status = emo__json_need_i64(stored, "steps", "state/run.json", 0, MAX_STEPS, &steps, err));
    if (t->steps == 0)
        t->steps = steps;
    EMO_TRY(status = describe(t, &own, err));
    EMO_TRY(status = emo__json_parse(&t->rt->mem, own.data, own.size, "run options", &mine, err));
    for (emo__json_iter it = emo__json_members(mine); emo__json_next(&it);) {
        const char *text = strcmp(it.key, "pool") == 0 ? emo__json_string(emo__json_get(stored, "pool"), NULL) : NULL;
        bool same = text == NULL && same_scalar(it.value, emo__json_get(stored, it.key));
        if (strcmp(it.key, "compute") == 0 && emo__json_get(stored, it.key) == NULL) /* of before there was a choice */
            same = t->model->compute == EMO_DTYPE_F32;
        if (text != NULL)
            EMO_TRY(status = same_pool(t, text, &same, err));
        if (!same) {
            status = emo__fail(err, EMO_E_MISMATCH, "the run in '%s' was started with another %s (see state/run.json)",
                               t->out, it.key);
            break;
        }
    }
done:
    emo__json_free(stored);
    emo__json_free(mine);
    emo__buf_free(&own);
    return status;
}

/* A tensor of the checkpoint to the back end's memory, through `room` where that is not the host's. */
static emo_status read_param(emo_trainer *t, emo__st_set *set, const char *prefix, size_t i, float *to, float *room,
                             emo_error *err) {
    const emo__param *p = &t->model->params[i];
    char plain[EMO__NAME_MAX];
    char name[EMO__NAME_MAX + 16];
    emo__param_name(p, plain);
    (void)snprintf(name, sizeof name, "%s%s", prefix, plain);
    const emo__st *st = NULL;
    const emo__st_entry *entry = NULL;
    int64_t shape[2] = {p->vector != 0 ? p->cols : p->rows, p->cols};
    emo_status status = emo__st_set_find(set, name, &st, &entry, err);
    if (status == EMO_OK)
        status = emo__st_check_shape(entry, shape, p->vector != 0 ? 1 : 2, err);
    if (status == EMO_OK)
        status =
            emo__st_read_as(st, entry, 0, (uint64_t)emo__param_count(p), EMO_DTYPE_F32, room != NULL ? room : to, err);
    if (status == EMO_OK && room != NULL)
        status = t->ops->upload(t->exec, to, room, (size_t)emo__param_count(p) * sizeof *to, err);
    return status;
}

static emo_status read_balance(emo_trainer *t, emo__st_set *set, emo_error *err) {
    const emo__st *st = NULL;
    const emo__st_entry *entry = NULL;
    if (emo__balance_state_words(t->balance) == 0)
        return EMO_OK;
    emo_status status = emo__st_set_find(set, "balance", &st, &entry, err);
    if (status != EMO_OK)
        return status;
    /* How much history there is depends on the steps done: the import checks it against its own header. */
    int64_t shape[1] = {entry->n_dims == 1 ? entry->shape[0] : 0};
    status = emo__st_check_shape(entry, shape, 1, err);
    if (status != EMO_OK)
        return status;
    if (entry->dtype != EMO_DTYPE_I32 || shape[0] < 1)
        return emo__fail(err, EMO_E_FORMAT, "tensor \"balance\" has %lld elements of type %s; I32 is expected",
                         (long long)shape[0], entry->dtype_name);
    size_t words = (size_t)shape[0];
    int32_t *counts = emo__malloc_array(&t->rt->mem, words, sizeof *counts);
    if (counts == NULL)
        return emo__fail_memory(err, words * sizeof *counts);
    status = emo__st_read(st, entry, 0, counts, words * sizeof *counts, err);
    if (status == EMO_OK)
        status = emo__balance_import(t->balance, t->exec, counts, words, err);
    emo__free(&t->rt->mem, counts);
    return status;
}

static emo_status read_state(emo_trainer *t, const char *folder, int64_t step, emo_error *err) {
    emo__buf path;
    emo__json *root = NULL;
    const char *isa = NULL;
    emo__buf_init(&path, &t->rt->mem);
    emo_status status;
    EMO_TRY(status = emo__path_join(&path, folder, "trainer.json", err));
    EMO_TRY(status = emo__json_load(&t->rt->mem, path.data, SMALL_FILE, &root, err));
    EMO_TRY(status = emo__json_need_i64(root, "step", path.data, 0, MAX_STEPS, &t->step, err));
    EMO_TRY(status = emo__json_need_i64(root, "steps", path.data, 0, MAX_STEPS, &t->steps, err));
    if (t->step != step)
        EMO_TRY(status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, t->step,
                                      "%s: it is of step %lld; its folder is that of step %lld", path.data,
                                      (long long)t->step, (long long)step));
    EMO_TRY(status = emo__json_need_i64(root, "tokens", path.data, 0, INT64_MAX / 4, &t->tokens, err));
    EMO_TRY(status = emo__json_opt_f64(root, "seconds", path.data, 0.0, 0.0, 1e18, &t->seconds_done, err));
    EMO_TRY(status = emo__json_need_string(root, "isa", path.data, &isa, err));
    if (strcmp(isa, emo_isa_name(t->rt->isa)) != 0)
        emo__log(t->rt, EMO_LOG_WARNING,
                 "the run in '%s' was trained with %s and goes on with %s: results are no longer equal bit for bit",
                 t->out, isa, emo_isa_name(t->rt->isa));
done:
    emo__json_free(root);
    emo__buf_free(&path);
    return status;
}

/* Host memory for the largest tensor, where the weights are on a device; else NULL. */
static emo_status make_room(const emo_trainer *t, float **room, emo_error *err) {
    int64_t most = 0;
    *room = NULL;
    if (emo__model_on_host(t->model))
        return EMO_OK;
    for (size_t i = 0; i < t->model->n_params; i++)
        most = emo__param_count(&t->model->params[i]) > most ? emo__param_count(&t->model->params[i]) : most;
    *room = emo__malloc_array(&t->rt->mem, (size_t)most, sizeof **room);
    return *room != NULL ? EMO_OK : emo__fail_memory(err, (size_t)most * sizeof **room);
}

static emo_status read_checkpoint(emo_trainer *t, const char *folder, int64_t step, emo_error *err) {
    emo__st_set *weights = NULL;
    emo__st_set *moments = NULL;
    emo_source *source = NULL;
    emo__buf path;
    emo__buf_init(&path, &t->rt->mem);
    emo_status status;
    float *room = NULL;
    EMO_TRY(status = make_room(t, &room, err));
    float *moments_room = t->offload != NULL ? NULL : room; /* those on the host are read into place */
    EMO_TRY(status = read_state(t, folder, step, err));
    EMO_TRY(status = emo__st_set_open(t->rt, folder, &weights, err));
    EMO_TRY(status = emo__path_join(&path, folder, "optimizer.safetensors", err));
    EMO_TRY(status = emo_source_open_path(t->rt, path.data, &source, err));
    EMO_TRY(status = emo__st_set_from_source(t->rt, source, &moments, err));
    for (size_t i = 0; i < t->model->n_params; i++) {
        const emo__param *p = &t->model->params[i];
        EMO_TRY(status = emo__report(&t->opt.progress, "resume", i, t->model->n_params, err));
        if (p->view->data != NULL)
            EMO_TRY(status = read_param(t, weights, "", i, (float *)(uintptr_t)p->view->data, room, err));
        if (t->grad_offset[i] < 0)
            continue;
        EMO_TRY(status = read_param(t, moments, "exp_avg.", i, t->m + t->grad_offset[i], moments_room, err));
        EMO_TRY(status = read_param(t, moments, "exp_avg_sq.", i, t->v + t->grad_offset[i], moments_room, err));
    }
    status = read_balance(t, moments, err);
    t->saved = t->step;
done:
    emo__free(&t->rt->mem, room);
    emo_source_release(source);
    emo__st_set_close(weights);
    emo__st_set_close(moments);
    emo__buf_free(&path);
    return status;
}

/* Drops the metrics of steps after the checkpoint: they will be made again. */
static emo_status cut_metrics(emo_trainer *t, emo_error *err) {
    emo__buf path;
    char *text = NULL;
    size_t size = 0;
    emo__buf_init(&path, &t->rt->mem);
    emo_status status;
    EMO_TRY(status = emo__path_join(&path, t->out, "metrics.jsonl", err));
    EMO_TRY(status = emo__file_read_if_there(&t->rt->mem, path.data, (size_t)1 << 40, &text, &size, err));
    if (text == NULL)
        goto done;
    size_t keep = 0;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        if (end == NULL)
            break;
        size_t next = (size_t)(end - text) + 1;
        emo__json *line = NULL;
        int64_t step = 0;
        status = emo__json_parse(&t->rt->mem, text + at, next - at, "metrics.jsonl", &line, err);
        if (status != EMO_OK && status != EMO_E_FORMAT)
            goto done;
        status = EMO_OK;
        emo__error_clear(err);
        bool good = emo__json_i64(emo__json_get(line, "step"), &step) && step <= t->step;
        emo__json_free(line);
        if (!good)
            break;
        keep = next;
        at = next;
    }
    if (keep < size)
        status = emo__file_write(&t->rt->mem, path.data, text, keep, err);
done:
    emo__free(&t->rt->mem, text);
    emo__buf_free(&path);
    return status;
}

static emo_status resume(emo_trainer *t, const char *state, bool has_plan, emo_error *err) {
    emo__buf path;
    char *text = NULL;
    size_t size = 0;
    emo__buf_init(&path, &t->rt->mem);
    emo_status status = EMO_OK;
    if (has_plan) {
        EMO_TRY(status = emo__path_join(&path, state, "run.json", err));
        EMO_TRY(status = emo__file_read(&t->rt->mem, path.data, SMALL_FILE, &text, &size, err));
        EMO_TRY(status = compare_plan(t, text, size, err));
        emo__free(&t->rt->mem, text);
        text = NULL;
    }
    EMO_TRY(status = emo__path_join(&path, state, "latest", err));
    EMO_TRY(status = emo__file_read_if_there(&t->rt->mem, path.data, 256, &text, &size, err));
    if (text != NULL) {
        int64_t step = emo__checkpoint_step(text);
        if (step < 0 || strlen(text) != size) {
            status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "'%s' does not name a checkpoint (step-N)",
                                  path.data);
            goto done;
        }
        EMO_TRY(status = emo__path_join(&path, state, text, err));
        EMO_TRY(status = read_checkpoint(t, path.data, step, err));
    }
    status = cut_metrics(t, err);
done:
    emo__free(&t->rt->mem, text);
    emo__buf_free(&path);
    return status;
}

static bool unfinished(const char *name) {
    static const char *const files[] = {".json" EMO__TEMPORARY, ".jsonl" EMO__TEMPORARY, ".safetensors" EMO__TEMPORARY,
                                        "latest" EMO__TEMPORARY};
    if (strncmp(name, EMO__WRITING, strlen(EMO__WRITING)) == 0)
        return true;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (strstr(name, files[i]) != NULL)
            return true;
    }
    return false;
}

/* What an earlier process left in a folder when it died while it wrote. */
static emo_status remove_unfinished(emo_trainer *t, const char *folder, emo_error *err) {
    emo__buf path;
    emo__buf_init(&path, &t->rt->mem);
    emo_status status = EMO_OK;
    for (int files = 0; status == EMO_OK && files < 2; files++) {
        emo__names names = {0};
        status = files != 0 ? emo__list_files(&t->rt->mem, folder, false, &names, err)
                            : emo__list_dirs(&t->rt->mem, folder, &names, err);
        for (size_t i = 0; status == EMO_OK && i < names.count; i++) {
            if (!unfinished(names.items[i]))
                continue;
            status = emo__path_join(&path, folder, names.items[i], err);
            if (status == EMO_OK)
                status = emo__remove_tree(&t->rt->mem, path.data, err);
        }
        emo__names_free(&names);
    }
    emo__buf_free(&path);
    return status;
}

emo_status emo__run_check(emo_trainer *t, emo_error *err) {
    emo__buf path;
    emo__buf_init(&path, &t->rt->mem);
    emo_status status = emo__path_join(&path, t->out, LOCK, err);
    if (status == EMO_OK)
        status = emo__lock_check(path.data, &t->lock, err);
    emo__buf_free(&path);
    return status;
}

emo_status emo__run_open(emo_trainer *t, emo_error *err) {
    emo__buf state;
    emo__buf path;
    emo__buf_init(&state, &t->rt->mem);
    emo__buf_init(&path, &t->rt->mem);
    bool has_plan = false;
    bool has_model = false;
    emo_status status;
    EMO_TRY(status = emo__path_join(&state, t->out, "state", err));
    EMO_TRY(status = emo__mkdirs(&t->rt->mem, state.data, err));
    EMO_TRY(status = emo__path_join(&path, t->out, LOCK, err));
    EMO_TRY(status = emo__lock_acquire(path.data, &t->lock, err));
    EMO_TRY(status = emo__path_join(&path, state.data, "run.json", err));
    EMO_TRY(status = emo__path_probe(path.data, &has_plan, err));
    EMO_TRY(status = emo__path_join(&path, t->out, "model.safetensors", err));
    EMO_TRY(status = emo__path_probe(path.data, &has_model, err));
    if (has_plan ? t->opt.resume == 0 : has_model) {
        status = emo__fail(err, EMO_E_EXISTS, "'%s' holds a %s already; %schoose another folder", t->out,
                           has_plan ? "run" : "model", has_plan ? "resume it, or " : "");
        goto done;
    }
    EMO_TRY(status = remove_unfinished(t, state.data, err));
    EMO_TRY(status = remove_unfinished(t, t->out, err));
    if (t->opt.resume != 0)
        EMO_TRY(status = resume(t, state.data, has_plan, err));
    if (!has_plan && t->steps > 0)
        status = emo__run_store_plan(t, err);
done:
    emo__buf_free(&state);
    emo__buf_free(&path);
    return status;
}
