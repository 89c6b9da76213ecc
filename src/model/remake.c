/* SPDX-License-Identifier: Apache-2.0 */
/* What the forward did not keep, made again for the backward by the same operators on the same numbers: to the bit. */
#include "model/pass_state.h"

static emo_status lap(emo__pass *p, emo_status status, emo_train_part part) {
    emo__pass_lap(p, part, 1);
    return status;
}

emo_status emo__pass_again(emo__pass *p, const emo__step *step, emo_error *err) {
    emo_status status = emo__step_begin(p, step, 0, p->batch.tokens, err);
    if (status == EMO_OK)
        status = emo__step_run(p, step, 0, p->batch.tokens, err);
    return lap(p, status, emo__step_part(step));
}

/* The layer from its input to the choice of experts, or to the input of its dense MLP. */
static emo_status first_half(emo__pass *p, int32_t l, emo_error *err) {
    emo_status status = EMO_OK;
    p->remaking = true;
    for (size_t i = 0; status == EMO_OK && i < p->n_steps; i++) {
        const emo__step *step = &p->steps[i];
        if (step->layer == l && step->stage != EMO__STAGE_EXPERTS && step->stage != EMO__STAGE_DENSE)
            status = emo__pass_again(p, step, err);
    }
    p->remaking = false;
    if (status == EMO_OK && emo__layer_is_moe(p, l))
        status = lap(p, emo__plan_rows(p, l, 0, p->batch.tokens, err), EMO_TRAIN_PART_ROUTING);
    return status;
}

emo_status emo__pass_remake(emo__pass *p, int32_t l, emo_error *err) {
    emo__step norm = {EMO__STAGE_FFN_NORM, l};
    emo_status status =
        p->cfg.recompute == EMO_RECOMPUTE_LAYER ? first_half(p, l, err) : emo__pass_again(p, &norm, err);
    if (status != EMO_OK || p->cfg.recompute == EMO_RECOMPUTE_NONE)
        return status;
    if (!emo__layer_is_moe(p, l))
        return lap(p, emo__dense_inputs(p, l, 0, p->batch.tokens, err), EMO_TRAIN_PART_DENSE);
    emo_experts_args a;
    emo__experts_args_of(p, l, 0, p->batch.tokens, &a);
    return lap(p, p->ops->experts_forward(p->exec, &a, err), EMO_TRAIN_PART_EXPERTS);
}
