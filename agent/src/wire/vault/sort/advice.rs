//! What a person does about a refusal: which command, where, and what it means to run it.

use super::Call;

pub(super) fn nothing(_: &Call<'_>) -> Option<String> {
    None
}

pub(super) fn unseal(_: &Call<'_>) -> Option<String> {
    Some("unseal it: vault operator unseal; nodes go on by themselves within a minute".into())
}

/// The command that lets an instance start anew.
fn delete(call: &Call<'_>) -> Option<String> {
    let Call::Login { mount, instance, .. } = call else {
        return None;
    };
    Some(format!("vault delete auth/{mount}/identity-accesslist/{instance}"))
}

pub(super) fn foreign_nonce(call: &Call<'_>) -> Option<String> {
    let delete = delete(call)?;
    Some(format!(
        "somebody logged in as this instance with another nonce: an agent before this one, or \
         an intruder on the node. Find out who (vault audit log). If it was an older agent \
         whose nonce file is left, configure it as the nonce to import; else run: {delete} \
         (it forgets the nonce, and the next to log in as this instance owns it)"
    ))
}

pub(super) fn locked(call: &Call<'_>) -> Option<String> {
    let delete = delete(call)?;
    Some(format!(
        "Vault lets this instance log in once only: its role, or an earlier log-in with an \
         empty nonce, said so. Take disallow_reauthentication off the role, then run: {delete}"
    ))
}

pub(super) fn outdated(call: &Call<'_>) -> Option<String> {
    let delete = delete(call)?;
    Some(format!(
        "Vault has seen a newer document of this instance (pendingTime): the metadata service \
         is stale, or this is a copy of the machine. If the document is the right one run: {delete}"
    ))
}

pub(super) fn poisoned(call: &Call<'_>) -> Option<String> {
    let delete = delete(call)?;
    Some(format!("an earlier log-in left a pendingTime that Vault cannot read; run: {delete}"))
}

pub(super) fn wrong_region(_: &Call<'_>) -> Option<String> {
    Some("a fresh instance is known within a minute; else Vault asks in another region".into())
}

pub(super) fn account(call: &Call<'_>) -> Option<String> {
    let Call::Login { mount, .. } = call else {
        return None;
    };
    Some(format!(
        "the instance is in an account that Vault has no role for: vault write \
         auth/{mount}/config/sts/ACCOUNT sts_role=ARN"
    ))
}

pub(super) fn vaults_rights(_: &Call<'_>) -> Option<String> {
    Some("Vault's own AWS credentials must allow ec2:DescribeInstances".into())
}

pub(super) fn make_login_role(call: &Call<'_>) -> Option<String> {
    let Call::Login { mount, role, .. } = call else {
        return None;
    };
    Some(format!(
        "correct the login role in the configuration, or make it: vault write \
         auth/{mount}/role/{role} auth_type=ec2 …"
    ))
}

pub(super) fn widen_login_role(call: &Call<'_>) -> Option<String> {
    let Call::Login { mount, role, .. } = call else {
        return None;
    };
    Some(format!(
        "the instance is not one that the role is for: compare with vault read \
         auth/{mount}/role/{role}"
    ))
}

pub(super) fn no_login_mount(call: &Call<'_>) -> Option<String> {
    let Call::Login { mount, role, .. } = call else {
        return None;
    };
    Some(format!(
        "is {mount}/ an aws mount (vault auth list), and is this node's address within \
         token_bound_cidrs of auth/{mount}/role/{role}?"
    ))
}

pub(super) fn document_signer(call: &Call<'_>) -> Option<String> {
    let Call::Login { mount, .. } = call else {
        return None;
    };
    Some(format!(
        "Vault does not know who signed the identity document: register the certificate of the \
         region's rsa2048 documents: vault write auth/{mount}/config/certificate/REGION \
         type=pkcs7 aws_public_cert=@FILE"
    ))
}

pub(super) fn policy(call: &Call<'_>) -> Option<String> {
    Some(match call {
        Call::Sign { .. } => format!(
            "a policy of the login role must allow update on {} (and does the mount exist?)",
            call.path()
        ),
        Call::KvRead { .. } => format!(
            "a policy of the login role must allow read on {} (and does the mount exist?)",
            call.path()
        ),
        Call::KvCreate { .. } => format!(
            "a policy of the login role must allow create on {}, and must not allow update",
            call.path()
        ),
        _ => format!("a policy of the login role must allow {}, as `default` does", call.path()),
    })
}

pub(super) fn authority(call: &Call<'_>) -> Option<String> {
    let Call::Sign { mount, .. } = call else {
        return None;
    };
    Some(format!(
        "the authority of {mount} must be renewed now, for every node: make a new issuer and \
         the default, and add it to the pinned bundle first"
    ))
}

pub(super) fn make_pki_role(call: &Call<'_>) -> Option<String> {
    let Call::Sign { mount, role } = call else {
        return None;
    };
    Some(format!(
        "correct the role in the configuration, or make it: vault write {mount}/roles/{role} …"
    ))
}

pub(super) fn widen_pki_role(call: &Call<'_>) -> Option<String> {
    let Call::Sign { mount, role } = call else {
        return None;
    };
    Some(format!("ask for what the role allows, or widen it: vault read {mount}/roles/{role}"))
}

pub(super) fn no_pki_mount(call: &Call<'_>) -> Option<String> {
    let Call::Sign { mount, .. } = call else {
        return None;
    };
    Some(format!("is {mount}/ a pki mount (vault secrets list)?"))
}

pub(super) fn no_kv_mount(call: &Call<'_>) -> Option<String> {
    let (Call::KvRead { mount, .. } | Call::KvCreate { mount, .. }) = call else {
        return None;
    };
    Some(format!("is {mount}/ a kv mount of version 2 (vault secrets list -detailed)?"))
}
