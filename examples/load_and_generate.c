/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shortest way from a model folder to text:
 *     load_and_generate MODEL_FOLDER "Once upon a time"
 */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>

static emo_status generate(emo_runtime *rt, const char *folder, const char *prompt, emo_error *err) {
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT; /* every default; set what differs */
    options.max_tokens = 60;

    EMO_TRY(emo_model_load_path(rt, folder, NULL, &model, err));
    EMO_TRY(emo_session_create(model, &options, &session, err));
    EMO_TRY(emo_session_append_text(session, prompt, err));
    printf("%s", prompt);
    for (emo_state state = EMO_STATE_PENDING; state != EMO_STATE_DONE;) {
        EMO_TRY(emo_session_advance(session, NULL, &state, err)); /* NULL: no budget, one token a call */
        fputs(emo_session_text(session), stdout);
        fflush(stdout);
    }
    printf("\n");
done: /* EMO_TRY jumps here on an error; release in any order, NULL is fine */
    emo_session_release(session);
    emo_model_release(model);
    return err->code;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL_FOLDER PROMPT\n", argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_status status = emo_runtime_create(NULL, &rt, &err);
    if (status == EMO_OK)
        status = generate(rt, argv[1], argv[2], &err);
    if (status != EMO_OK)
        fprintf(stderr, "%s: %s\n", emo_status_name(status), err.message);
    emo_runtime_release(rt);
    return status == EMO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
