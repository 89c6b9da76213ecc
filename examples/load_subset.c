/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load a part of a model's experts and talk to it without ever blocking for long:
 *     load_subset MODEL_FOLDER MASK_FILE "A fever in small children"
 */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>

static emo_status talk(emo_runtime *rt, const char *folder, const char *mask_file, const char *prompt, emo_error *err) {
    emo_mask *mask = NULL;
    emo_model *model = NULL;
    emo_session *chat = NULL;

    emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT; /* every default; set what differs */
    EMO_TRY(emo_mask_load(rt, mask_file, &mask, err));
    load.subset = mask; /* the other experts are never read */
    EMO_TRY(emo_model_load_path(rt, folder, &load, &model, err));

    emo_model_info info = EMO_MODEL_INFO_INIT;
    EMO_TRY(emo_model_get_info(model, &info, err));
    printf("[%.2f of %.2f million parameters loaded]\n", 1e-6 * (double)info.loaded, 1e-6 * (double)info.parameters);

    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    options.max_tokens = 60;
    options.temperature = 0.8f;
    options.top_p = 0.95f;
    EMO_TRY(emo_session_create(model, &options, &chat, err));
    EMO_TRY(emo_session_append_text(chat, prompt, err));
    printf("%s", prompt);

    emo_budget budget = emo_budget_ms(4); /* about the longest that one call may take */
    for (emo_state state = EMO_STATE_PENDING; state != EMO_STATE_DONE;) {
        EMO_TRY(emo_session_advance(chat, &budget, &state, err));
        fputs(emo_session_text(chat), stdout); /* a view, valid until the next call on chat; often empty */
        fflush(stdout);
        /* Here a game draws its next frame, an editor handles its keys, a robot looks around. */
    }
    printf("\n");
done: /* EMO_TRY jumps here; release in any order, NULL is fine */
    emo_session_release(chat);
    emo_model_release(model);
    emo_mask_release(mask);
    return err->code;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s MODEL_FOLDER MASK_FILE PROMPT\n", argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_status status = emo_runtime_create(NULL, &rt, &err);
    if (status == EMO_OK)
        status = talk(rt, argv[1], argv[2], argv[3], &err);
    if (status != EMO_OK)
        fprintf(stderr, "%s\n", err.message);
    emo_runtime_release(rt);
    return status == EMO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
