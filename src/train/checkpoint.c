/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a run folder:
 *
 *   OUT/                    the exported model: config.json, model.safetensors, tokenizer.json
 *   OUT/metrics.jsonl       one line a step
 *   OUT/state/lock          held while a process works on the run
 *   OUT/state/run.json      what the run was started with
 *   OUT/state/step-N/       a checkpoint, complete in itself
 *   OUT/state/latest        the name of the newest complete checkpoint, renamed into place last
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "model/access.h"
#include "model/files.h"
#include "tensor/dtype.h"
#include "train/run_folder.h"

static emo_status add_moment(emo_trainer *t, emo__access *access, emo__st_writer *w, const char *prefix, size_t i,
                             bool data, const float *block, emo_error *err) {
    const emo__param *p = &t->model->params[i];
    char name[EMO__NAME_MAX + 16];
    char plain[EMO__NAME_MAX];
    emo__param_name(p, plain);
    (void)snprintf(name, sizeof name, "%s.%s", prefix, plain);
    int64_t shape[2] = {p->vector != 0 ? p->cols : p->rows, p->cols};
    if (!data)
        return emo__st_writer_add(w, name, EMO_DTYPE_F32, shape, p->vector != 0 ? 1 : 2, err);
    size_t bytes = (size_t)emo__param_count(p) * sizeof(float);
    const void *host = block + t->grad_offset[i];
    emo_status status = t->offload != NULL ? EMO_OK : emo__access_read(access, host, bytes, &host, err);
    return status == EMO_OK ? emo__st_writer_write(w, name, host, bytes, err) : status;
}

/* exp_avg.<name>, exp_avg_sq.<name> of every trained parameter, and the balancing counts. */
static emo_status write_optimizer(emo_trainer *t, const char *path, emo__phase *phase, emo_error *err) {
    emo__st_writer *w = NULL;
    size_t n_params = t->model->n_params;
    size_t words = emo__balance_state_words(t->balance);
    int64_t shape[1] = {(int64_t)words};
    int32_t *counts = NULL;
    emo__access access = {0};
    emo_status status;
    EMO_TRY(status = emo__offload_settle(t, err));
    EMO_TRY(status = emo__access_begin(t->model, &access, err));
    EMO_TRY(status = emo__st_writer_create(t->rt, path, 0, &w, err));
    for (int pass = 0; pass < 2; pass++) {
        bool data = pass == 1;
        if (data)
            EMO_TRY(status = emo__st_writer_begin(w, err));
        for (size_t i = 0; i < n_params; i++) {
            if (t->grad_offset[i] < 0)
                continue;
            if (data) {
                EMO_TRY(status = emo__report(phase->outer, phase->name, phase->done, phase->total, err));
                emo__phase_next(phase, 2);
            }
            EMO_TRY(status = add_moment(t, &access, w, "exp_avg", i, data, t->m, err));
            EMO_TRY(status = add_moment(t, &access, w, "exp_avg_sq", i, data, t->v, err));
        }
        if (!data && words > 0)
            EMO_TRY(status = emo__st_writer_add(w, "balance", EMO_DTYPE_I32, shape, 1, err));
    }
    if (words > 0) {
        counts = emo__malloc_array(&t->rt->mem, words, sizeof *counts);
        if (counts == NULL) {
            status = emo__fail_memory(err, words * sizeof *counts);
            goto done;
        }
        EMO_TRY(status = emo__balance_export(t->balance, t->exec, counts, err));
        EMO_TRY(status = emo__st_writer_write(w, "balance", counts, words * sizeof *counts, err));
    }
    status = emo__st_writer_finish(w, err);
done:
    emo__access_end(&access);
    emo__free(&t->rt->mem, counts);
    emo__st_writer_destroy(w);
    return status;
}

static emo_status write_state(emo_trainer *t, const char *path, emo_error *err) {
    emo__buf text;
    emo__buf_init(&text, &t->rt->mem);
    emo__jw w;
    emo__jw_begin(&w, &text, 2, err);
    emo__jw_object(&w, NULL);
    emo__jw_i64(&w, "step", t->step);
    emo__jw_i64(&w, "steps", t->steps);
    emo__jw_i64(&w, "tokens", t->tokens);
    emo__jw_f64(&w, "seconds", t->seconds_done);
    emo__jw_string(&w, "isa", emo_isa_name(t->rt->isa));
    emo__jw_object_end(&w);
    emo_status status = emo__jw_end(&w);
    if (status == EMO_OK)
        status = emo__file_write(&t->rt->mem, path, text.data, text.size, err);
    emo__buf_free(&text);
    return status;
}

/* Keeps the newest checkpoints, and whatever is not one of ours. */
static emo_status prune_old(emo_trainer *t, const char *state, emo_error *err) {
    emo__names names = {0};
    emo__buf path;
    emo__buf_init(&path, &t->rt->mem);
    emo_status status = emo__list_dirs(&t->rt->mem, state, &names, err);
    for (size_t i = 0; status == EMO_OK && i < names.count; i++) {
        int64_t step = emo__checkpoint_step(names.items[i]);
        if (step < 0 || step > t->step)
            continue;
        int32_t newer = 0;
        for (size_t j = 0; j < names.count; j++) {
            int64_t other = emo__checkpoint_step(names.items[j]);
            newer += other > step && other <= t->step ? 1 : 0;
        }
        if (newer < t->opt.keep_checkpoints)
            continue;
        status = emo__path_join(&path, state, names.items[i], err);
        if (status == EMO_OK)
            status = emo__remove_tree(&t->rt->mem, path.data, err);
    }
    emo__names_free(&names);
    emo__buf_free(&path);
    return status;
}

/* The model, as a part of the phase. */
static emo_status write_model(emo_trainer *t, const char *folder, emo__phase *phase, emo_error *err) {
    emo_model_save_options save = EMO_MODEL_SAVE_OPTIONS_INIT;
    save.extended = 1; /* a run must be able to go on */
    save.progress = (emo_progress){phase, emo__phase_report};
    emo__phase_next(phase, t->model->n_params);
    return emo__model_save_into(t->model, folder, &save, err);
}

static emo_status write_files(emo_trainer *t, const char *folder, emo__phase *phase, emo__buf *path, emo_error *err) {
    emo_status status;
    EMO_TRY(status = emo__remove_tree(&t->rt->mem, folder, err));
    EMO_TRY(status = emo__mkdir(folder, err)); /* not its parents: a run folder that went away stays away */
    EMO_TRY(status = write_model(t, folder, phase, err));
    emo__phase_next(phase, 0);
    EMO_TRY(status = emo__path_join(path, folder, "optimizer.safetensors", err));
    EMO_TRY(status = write_optimizer(t, path->data, phase, err));
    EMO_TRY(status = emo__path_join(path, folder, "trainer.json", err));
    EMO_TRY(status = write_state(t, path->data, err));
    status = emo__sync_dir(folder, err);
done:
    return status;
}

/* Tensors that a checkpoint writes: the model twice (in the checkpoint, and as the exported one), and the moments. */
static uint64_t tensors_of(const emo_trainer *t) {
    uint64_t n = 2 * (uint64_t)t->model->n_params;
    for (size_t i = 0; i < t->model->n_params; i++)
        n += t->grad_offset[i] >= 0 ? 2 : 0;
    return n;
}

/* What there is of a checkpoint that was cancelled: `latest` names the one before. */
static void sweep(emo_trainer *t, const char *folder) {
    emo_error err = EMO_ERROR_INIT;
    if (emo__remove_tree(&t->rt->mem, folder, &err) != EMO_OK)
        emo__log(t->rt, EMO_LOG_WARNING, "a cancelled checkpoint could not be removed: %s", err.message);
}

emo_status emo__checkpoint_write(emo_trainer *t, const emo_progress *progress, emo_error *err) {
    emo__phase phase = {progress, "checkpoint", 0, tensors_of(t), 0, 0};
    emo_status status = emo__run_check(t, err);
    if (status == EMO_OK) /* first the metrics: a resume keeps them up to its checkpoint */
        status = emo__metrics_record(t, err);
    if (status != EMO_OK)
        return status;
    if (t->saved == t->step) /* `latest` names it: it must not be taken away to be written again */
        return EMO_OK;
    emo__buf state;
    emo__buf partial;
    emo__buf final;
    emo__buf path;
    char name[48];
    char partial_name[64];
    emo__buf_init(&state, &t->rt->mem);
    emo__buf_init(&partial, &t->rt->mem);
    emo__buf_init(&final, &t->rt->mem);
    emo__buf_init(&path, &t->rt->mem);
    (void)snprintf(name, sizeof name, "step-%lld", (long long)t->step);
    (void)snprintf(partial_name, sizeof partial_name, EMO__WRITING "%s", name);
    EMO_TRY(status = emo__path_join(&state, t->out, "state", err));
    EMO_TRY(status = emo__path_join(&partial, state.data, partial_name, err));
    EMO_TRY(status = emo__path_join(&final, state.data, name, err));
    EMO_TRY(status = write_files(t, partial.data, &phase, &path, err));
    EMO_TRY(status = emo__remove_tree(&t->rt->mem, final.data, err));
    EMO_TRY(status = emo__rename(partial.data, final.data, err));
    EMO_TRY(status = emo__sync_dir(state.data, err));
    /* first the exported model: a run whose last checkpoint is complete is complete altogether */
    EMO_TRY(status = write_model(t, t->out, &phase, err));
    EMO_TRY(status = emo__path_join(&path, state.data, "latest", err));
    EMO_TRY(status = emo__file_write(&t->rt->mem, path.data, name, strlen(name), err));
    t->saved = t->step;
    status = prune_old(t, state.data, err);
done:
    if (status == EMO_E_CANCELLED)
        sweep(t, partial.data);
    emo__buf_free(&state);
    emo__buf_free(&partial);
    emo__buf_free(&final);
    emo__buf_free(&path);
    return status;
}

static emo_status record(const emo_trainer *t, const emo_step_metrics *m, emo_error *err) {
    emo_status status;
    emo__buf text;
    emo__buf path;
    emo__buf_init(&text, &t->rt->mem);
    emo__buf_init(&path, &t->rt->mem);
    emo__jw w;
    emo__jw_begin(&w, &text, 0, err);
    emo__jw_object(&w, NULL);
    emo__jw_i64(&w, "step", m->step);
    emo__jw_i64(&w, "steps", m->steps);
    emo__jw_i64(&w, "tokens", m->tokens);
    emo__jw_f64(&w, "loss", m->loss);
    emo__jw_f64(&w, "lm_z_loss", m->lm_z_loss);
    emo__jw_f64(&w, "balance_loss", m->balance_loss);
    emo__jw_f64(&w, "router_z_loss", m->router_z_loss);
    emo__jw_f64(&w, "total_loss", m->total_loss);
    emo__jw_f64(&w, "grad_norm", m->grad_norm);
    emo__jw_f64(&w, "lr", m->lr);
    emo__jw_f64(&w, "max_load", m->max_load);
    emo__jw_f64(&w, "seconds", m->seconds);
    emo__jw_f64(&w, "tokens_per_second", m->tokens_per_second);
    if (isfinite(m->valid_loss))
        emo__jw_f64(&w, "valid_loss", m->valid_loss);
    if (t->opt.repetition_count > 0)
        emo__jw_i64(&w, "filtered_rows", m->filtered_rows);
    if (m->skipped != 0)
        emo__jw_bool(&w, "skipped", true);
    emo__jw_object_end(&w);
    status = emo__jw_end(&w);
    if (status == EMO_OK)
        status = emo__buf_append(&text, "\n", 1, err);
    if (status == EMO_OK)
        status = emo__path_join(&path, t->out, "metrics.jsonl", err);
    if (status == EMO_OK)
        status = emo__file_append(path.data, text.data, text.size, err);
    emo__buf_free(&text);
    emo__buf_free(&path);
    return status;
}

emo_status emo__metrics_record(emo_trainer *t, emo_error *err) {
    emo_status status = t->n_unrecorded > 0 ? emo__run_check(t, err) : EMO_OK;
    while (status == EMO_OK && t->n_unrecorded > 0) {
        status = record(t, &t->unrecorded[0], err);
        if (status == EMO_OK) {
            t->unrecorded[0] = t->unrecorded[1];
            t->n_unrecorded--;
        }
    }
    return status;
}
